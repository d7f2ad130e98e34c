package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
)

// ParseListen parses ADDR:PORT. For ":9091" it returns an AddrPort without an address, which
// stands for all addresses; Config.IPv6 says of which families.
func ParseListen(text string) (netip.AddrPort, error) {
	if port, ok := strings.CutPrefix(text, ":"); ok {
		if n, err := parsePort(port); err == nil {
			return netip.AddrPortFrom(netip.Addr{}, n), nil
		}
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("listen %q: want ADDR:PORT such as 127.0.0.1:9091, [::1]:9091 or :9091", text)
	}
	if ap.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("listen %q: rules cannot name an address with a zone", text)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// family is one of the two IP families, as each tool calls it.
type family struct {
	v6 bool
	// nft is the keyword of an address (ip saddr), nfproto that of the family.
	nft, nfproto string
	// iptables is the program; -restore and -save are appended to its name.
	iptables string
	// ip is the start of a routing command.
	ip string
	// any is the prefix of all addresses.
	any netip.Prefix
	// sysctl is the directory of the family's settings.
	sysctl string
	// icmp is the protocol of errors. icmpErrors are the types that sockets react to; nft
	// and iptables use the same names.
	icmp       string
	icmpErrors []string
}

func ipv4() family {
	return family{false, "ip", "ipv4", "iptables", "ip", netip.MustParsePrefix("0.0.0.0/0"), "net/ipv4",
		"icmp", []string{"destination-unreachable", "time-exceeded", "parameter-problem"}}
}

func ipv6() family {
	return family{true, "ip6", "ipv6", "ip6tables", "ip -6", netip.MustParsePrefix("::/0"), "net/ipv6",
		"icmpv6", []string{"destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"}}
}

// target is a family and the listener that its connections are diverted to.
type target struct {
	family
	// addr is invalid if the listener is on all addresses.
	addr netip.Addr
	port uint16
}

// String returns the listener in the syntax of nft and iptables: 127.0.0.1:9091,
// [::1]:9091 or, for all addresses, :9091.
func (t target) String() string {
	if !t.addr.IsValid() {
		return fmt.Sprintf(":%d", t.port)
	}
	return netip.AddrPortFrom(t.addr, t.port).String()
}

// targets returns the diverted families and their listeners, IPv4 first.
func (c Config) targets() []target {
	var v4, v6 []target
	for _, l := range c.Listen {
		addr, port := l.Addr(), l.Port()
		switch {
		case !addr.IsValid():
			v4 = append(v4, target{ipv4(), addr, port})
			if c.IPv6 {
				v6 = append(v6, target{ipv6(), addr, port})
			}
		case addr.Is6() && addr.IsUnspecified():
			v4 = append(v4, target{ipv4(), netip.Addr{}, port})
			v6 = append(v6, target{ipv6(), netip.Addr{}, port})
		case addr.IsUnspecified():
			v4 = append(v4, target{ipv4(), netip.Addr{}, port})
		case addr.Is4():
			v4 = append(v4, target{ipv4(), addr, port})
		default:
			v6 = append(v6, target{ipv6(), addr, port})
		}
	}
	return append(v4, v6...)
}

// families returns the families of targets.
func (c Config) families() []family {
	var out []family
	for _, t := range c.targets() {
		out = append(out, t.family)
	}
	return out
}

func (c Config) checkListen() error {
	if len(c.Listen) == 0 {
		return errors.New("no listener: give the relay's address with --listen")
	}
	for _, l := range c.Listen {
		switch {
		case l.Port() == 0:
			return fmt.Errorf("listen %v: port 0; rules need the port that the relay listens on", l)
		case l.Addr().Zone() != "":
			return fmt.Errorf("listen %v: rules cannot name an address with a zone", l)
		case l.Addr().Is4In6():
			return fmt.Errorf("listen %v: write the IPv4 address itself", l)
		case l.Addr().Is6() && l.Addr().IsLoopback() && c.Mode == tproxy.Redirect:
			return fmt.Errorf("listen %v: the kernel does not let redirected IPv6 connections reach the loopback address; listen on [::]:%d or use tproxy mode", l, l.Port())
		}
	}
	targets := c.targets()
	isV6 := func(t target) bool { return t.v6 }
	v6 := slices.IndexFunc(targets, isV6)
	if c.IPv6 && v6 < 0 {
		return fmt.Errorf("--ipv6: no listener serves IPv6; listen on [::]:%d, or add one such as [::1]:%d", c.Listen[0].Port(), c.Listen[0].Port())
	}
	n6 := 0
	for _, t := range targets {
		if t.v6 {
			n6++
		}
	}
	if n6 > 1 || len(targets)-n6 > 1 {
		return errors.New("two listeners for one family: rules can divert to only one of them")
	}
	return nil
}
