package netlab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attach makes a lab of three hosts that exist already, such as Mininet's: those in whose
// network namespaces the processes h1, h2 and h3 run. It changes nothing there, and
// [Lab.Close] ends the programs that were started through the lab and nothing else.
//
// The hosts' interfaces are those that are up and have an IPv4 address. Of h2's, the first is
// the one in h1's network. Interfaces keep their names, so [Edge], [Left] and [Right] are
// unknown there. It needs root.
func Attach(h1, h2, h3 int) (*Lab, error) {
	lab := &Lab{running: map[*Cmd]struct{}{}, attached: true}
	lab.ctx, lab.cancel = context.WithCancel(context.Background())
	if err := lab.attach(h1, h2, h3); err != nil {
		lab.Close()
		return nil, fmt.Errorf("netlab: %w", err)
	}
	return lab, nil
}

func (lab *Lab) attach(pids ...int) (err error) {
	for i, to := range []**Host{&lab.H1, &lab.H2, &lab.H3} {
		name, pid := fmt.Sprintf("h%d", i+1), pids[i]
		if *to, err = newHost(lab, name, func() error { return enterNetns(pid) }); err != nil {
			return err
		}
		if err := (*to).findIfaces(); err != nil {
			return err
		}
	}
	h2 := lab.H2
	for i, iface := range h2.Ifaces {
		if iface.Prefix4.Contains(lab.H1.Addr4) {
			h2.Ifaces[0], h2.Ifaces[i] = h2.Ifaces[i], h2.Ifaces[0]
			h2.Addr4, h2.Addr6 = h2.Ifaces[0].Addr4, h2.Ifaces[0].Addr6
			return nil
		}
	}
	return fmt.Errorf("h2: no interface is in the network of h1, which has %v", lab.H1.Addr4)
}

// enterNetns moves the calling thread into the network namespace of a process.
func enterNetns(pid int) error {
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace of process %d: %w; run as root", pid, err)
	}
	return nil
}

// findIfaces notes the interfaces of a host that exists, and their addresses.
func (h *Host) findIfaces() error {
	return h.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("%s: interfaces: %w", h.Name, err)
		}
		for _, link := range links {
			iface := Iface{Name: link.Attrs().Name}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
			if err != nil {
				return fmt.Errorf("%s: addresses of %s: %w", h.Name, iface.Name, err)
			}
			for _, a := range addrs {
				ip, ok := netip.AddrFromSlice(a.IP)
				if !ok || !ip.Unmap().IsGlobalUnicast() {
					continue
				}
				ip = ip.Unmap()
				length, _ := a.Mask.Size()
				if prefix := netip.PrefixFrom(ip, length); ip.Is4() {
					iface.Addr4, iface.Prefix4 = ip, prefix
				} else {
					iface.Addr6, iface.Prefix6 = ip, prefix
				}
			}
			if iface.Addr4.IsValid() && link.Attrs().RawFlags&unix.IFF_UP != 0 {
				h.Ifaces = append(h.Ifaces, iface)
			}
		}
		if len(h.Ifaces) == 0 {
			return fmt.Errorf("%s: no interface has an IPv4 address", h.Name)
		}
		h.Addr4, h.Addr6 = h.Ifaces[0].Addr4, h.Ifaces[0].Addr6
		return nil
	})
}
