package netlab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CutLink sets an interface of the host down, and returns what sets it up again. The
// kernel forgets the routes of an interface that goes down. A real host's network manager
// restores them, and restore does too. Addresses stay. While the link is cut, nothing
// passes in either direction, and the host knows it; the other end of the link sees that
// its carrier is gone. On error the link is up.
func (h *Host) CutLink(iface string) (restore func() error, err error) {
	if err := h.SetSysctl("net.ipv6.conf."+iface+".keep_addr_on_down", "1"); err != nil {
		return nil, err
	}
	// The kernel does this for both ends of a veth pair, and we for a line's.
	carrier := func(on bool) error { return nil }
	if w, ok := h.ways[iface]; ok {
		carrier = func(on bool) error { return setCarrier(w.to, on) }
	}
	var routes []netlink.Route
	err = h.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			of, err := netlink.RouteList(link, family)
			if err != nil {
				return fmt.Errorf("list the routes: %w", err)
			}
			routes = append(routes, of...)
		}
		if err := netlink.LinkSetDown(link); err != nil {
			return err
		}
		return carrier(false)
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: cut %s: %w", h.Name, iface, err)
	}
	return func() error {
		if err := h.Do(func() error { return errors.Join(carrier(true), linkUpWith(iface, routes)) }); err != nil {
			return fmt.Errorf("netlab: %s: restore %s: %w", h.Name, iface, err)
		}
		return nil
	}, nil
}

// linkUpWith sets an interface of the calling thread's namespace up and gives it those
// of the routes that the kernel does not make by itself.
func linkUpWith(iface string, routes []netlink.Route) error {
	if err := linkUp(iface); err != nil {
		return err
	}
	for _, direct := range []bool{true, false} { // gateways must be reachable first
		for _, r := range routes {
			if (r.Gw == nil) != direct {
				continue
			}
			r.Flags = 0 // what the kernel says of it: linkdown
			if err := netlink.RouteAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("route to %v: %w", r.Dst, err)
			}
		}
	}
	return nil
}
