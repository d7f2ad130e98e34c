package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// build makes the hosts, the links between them, addresses and routes. Each
// host configures itself on its own thread, so interfaces come into being in
// their namespace and were never anywhere else.
func (lab *Lab) build(cfg Config) error {
	var err error
	if lab.H1, err = newHost(lab, "h1", newNetns); err != nil {
		return err
	}
	if lab.H2, err = newHost(lab, "h2", newNetns); err != nil {
		return err
	}
	if lab.H3, err = newHost(lab, "h3", newNetns); err != nil {
		return err
	}
	for _, h := range lab.hosts() {
		if err := h.prepare(h == lab.H2); err != nil {
			return err
		}
	}

	if err := lab.connect(lab.H2, Left, lab.H1, Edge, cfg.Access, cfg); err != nil {
		return err
	}
	if err := lab.connect(lab.H2, Right, lab.H3, Edge, cfg.Bottleneck, cfg); err != nil {
		return err
	}
	for _, plug := range []struct {
		host       *Host
		iface      string
		net4, net6 string
		link       Link
		via4, via6 string
	}{
		{lab.H1, Edge, "10.77.1.1/24", "fd77:1::1/64", cfg.Access, "10.77.1.2", "fd77:1::2"},
		{lab.H2, Left, "10.77.1.2/24", "fd77:1::2/64", cfg.Access, "", ""},
		{lab.H2, Right, "10.77.2.2/24", "fd77:2::2/64", cfg.Bottleneck, "", ""},
		{lab.H3, Edge, "10.77.2.3/24", "fd77:2::3/64", cfg.Bottleneck, "10.77.2.2", "fd77:2::2"},
	} {
		h := plug.host
		prefixes := []netip.Prefix{netip.MustParsePrefix(plug.net4), netip.MustParsePrefix(plug.net6)}
		if err := h.configure(plug.iface, prefixes, cfg.MSS); err != nil {
			return err
		}
		for _, via := range []string{plug.via4, plug.via6} {
			if via == "" {
				continue
			}
			if err := h.defaultRoute(plug.iface, netip.MustParseAddr(via), cfg.MSS); err != nil {
				return err
			}
		}
		if err := h.shape(plug.iface, plug.link); err != nil {
			return err
		}
		h.Ifaces = append(h.Ifaces, Iface{
			Name:    plug.iface,
			Addr4:   prefixes[0].Addr(),
			Addr6:   prefixes[1].Addr(),
			Prefix4: prefixes[0],
			Prefix6: prefixes[1],
		})
		h.Addr4, h.Addr6 = h.Ifaces[0].Addr4, h.Ifaces[0].Addr6
	}
	return nil
}

// prepare sets the host's kernel parameters, before there is an interface that
// would take over the defaults, and its loopback interface.
func (h *Host) prepare(forward bool) error {
	params := []struct{ name, value string }{
		// A new namespace copies some of these from the machine's first one;
		// a lab is to be the same everywhere.
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv4.conf.all.src_valid_mark", "0"},
		{"net.ipv4.conf.default.src_valid_mark", "0"},
		// One measurement must not inherit the thresholds of the one before.
		{"net.ipv4.tcp_no_metrics_save", "1"},
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return errors.New("this kernel runs without IPv6, which the lab needs; boot without ipv6.disable=1")
	}
	params = append(params, []struct{ name, value string }{
		{"net.ipv6.conf.all.disable_ipv6", "0"},
		{"net.ipv6.conf.default.disable_ipv6", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"}, // addresses are of use at once
		{"net.ipv6.conf.default.accept_ra", "0"},
	}...)
	if forward {
		params = append(params, []struct{ name, value string }{
			{"net.ipv4.ip_forward", "1"},
			{"net.ipv6.conf.all.forwarding", "1"},
			{"net.ipv6.conf.default.forwarding", "1"},
		}...)
	}
	for _, p := range params {
		if err := h.SetSysctl(p.name, p.value); err != nil {
			return err
		}
	}
	err := h.Do(func() error { return linkUp("lo") })
	if err != nil {
		return fmt.Errorf("%s: set lo up: %w", h.Name, err)
	}
	return nil
}

// connect makes a link between two hosts: a pair of interfaces of the kernel's,
// or a delay line where only that can delay.
func (lab *Lab) connect(a *Host, aName string, b *Host, bName string, l Link, cfg Config) error {
	if l.Delay == 0 {
		return a.connect(aName, b, bName)
	}
	able, err := a.hasNetem()
	if err != nil {
		return err
	}
	switch {
	case able && !cfg.alwaysLine:
		return a.connect(aName, b, bName)
	case cfg.NetemOnly:
		return fmt.Errorf("%w; load the module sch_netem or do without delay", ErrNoNetem)
	}
	line, err := newLine(a, aName, b, bName, l.Delay)
	var no *noTAP
	if errors.As(err, &no) {
		return fmt.Errorf("%w, nor %s to do it without (%w); load the module sch_netem or tun, or do without delay", ErrNoNetem, tapDevice, no.err)
	}
	if err != nil {
		return err
	}
	lab.lines = append(lab.lines, line)
	return nil
}

// connect makes a pair of interfaces, one of which is the peer's.
func (h *Host) connect(name string, peer *Host, peerName string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.ns)}
	err := h.Do(func() error { return netlink.LinkAdd(pair) })
	if err != nil {
		return fmt.Errorf("veth pair %s %s - %s %s: %w", h.Name, name, peer.Name, peerName, err)
	}
	return nil
}

// configure sets the interface up, with its addresses and the routes to their
// networks. The kernel would make these routes by itself, but without an MSS.
func (h *Host) configure(iface string, prefixes []netip.Prefix, mss int) error {
	err := h.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		for _, p := range prefixes {
			flags := unix.IFA_F_NOPREFIXROUTE
			if p.Addr().Is6() {
				flags |= unix.IFA_F_NODAD
			}
			addr := &netlink.Addr{IPNet: ipNet(p), Flags: flags}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("add address %s: %w", p, err)
			}
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(p.Masked()), AdvMSS: mss, Protocol: unix.RTPROT_KERNEL}
			if p.Addr().Is4() {
				route.Scope, route.Src = netlink.SCOPE_LINK, p.Addr().AsSlice()
			}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("add route to %s: %w", p.Masked(), err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name, iface, err)
	}
	return nil
}

func (h *Host) defaultRoute(iface string, via netip.Addr, mss int) error {
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	err := h.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(everywhere), Gw: via.AsSlice(), AdvMSS: mss,
		})
	})
	if err != nil {
		return fmt.Errorf("%s: default route via %s: %w", h.Name, via, err)
	}
	return nil
}

// linkUp sets an interface of the calling thread's namespace up.
func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
