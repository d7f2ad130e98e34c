package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// modeFlag is --mode.
type modeFlag struct{ tproxy.Mode }

// UnmarshalText parses the name of a mode.
func (m *modeFlag) UnmarshalText(text []byte) (err error) {
	m.Mode, err = tproxy.ParseMode(string(text))
	return err
}

// spoofFlag is --spoof.
type spoofFlag struct{ tproxy.Spoof }

// UnmarshalText parses a policy.
func (s *spoofFlag) UnmarshalText(text []byte) (err error) {
	s.Spoof, err = tproxy.ParseSpoof(string(text))
	return err
}

// markFlag is --mark, in decimal or, with 0x, hexadecimal. 0 is refused: it is the mark of
// every unmarked packet.
type markFlag uint32

// UnmarshalText parses a mark.
func (m *markFlag) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 0, 32)
	if err != nil {
		return fmt.Errorf("%q: want a number up to 0xffffffff, such as 0x74 or 116", text)
	}
	if n == 0 {
		return fmt.Errorf("%q: 0 means unmarked; give another number, or omit the flag", text)
	}
	*m = markFlag(n)
	return nil
}

// portFlag is a TCP port.
type portFlag uint16

// UnmarshalText parses a port.
func (p *portFlag) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q: want a port from 1 to 65535", text)
	}
	*p = portFlag(n)
	return nil
}

// onDownFlag is rules --on-down.
type onDownFlag rules.OnDown

// UnmarshalText parses open or closed.
func (o *onDownFlag) UnmarshalText(text []byte) error {
	switch got := rules.OnDown(text); got {
	case rules.Open, rules.Closed:
		*o = onDownFlag(got)
		return nil
	}
	return fmt.Errorf("%q: want open or closed", text)
}

// networkFlag is a network. A single address stands for the network that holds only it.
type networkFlag struct{ netip.Prefix }

// UnmarshalText parses 10.0.0.0/8, 2001:db8::/32, 10.1.2.3 or 2001:db8::1. It clears bits
// beyond the prefix length, and turns IPv4-mapped IPv6 into IPv4.
func (n *networkFlag) UnmarshalText(text []byte) error {
	p, err := netip.ParsePrefix(string(text))
	if addr, asAddr := netip.ParseAddr(string(text)); asAddr == nil && addr.Zone() == "" {
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return fmt.Errorf("%q: want a network such as 10.0.0.0/8, or an address", text)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	n.Prefix = p.Masked()
	return nil
}

// prefixes returns the networks of flags.
func prefixes(flags []networkFlag) []netip.Prefix {
	var networks []netip.Prefix
	for _, n := range flags {
		networks = append(networks, n.Prefix)
	}
	return networks
}

// zeroIsNone converts a timeout from the command line, where 0 turns it off, to Options, where
// a negative value turns it off and 0 is the default.
func zeroIsNone(t time.Duration) time.Duration {
	if t == 0 {
		return -1
	}
	return t
}
