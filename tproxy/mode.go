package tproxy

import (
	"fmt"
	"strings"
)

// Mode says how connections come to a listener and so how their original destination is learned.
// The zero value is no mode, so that a listener is not transparent because Mode was left out.
type Mode uint8

const (
	// TPROXY: the netfilter target TPROXY (nft: tproxy) hands over connections unchanged. The
	// accepted socket's local address is the destination. It needs CAP_NET_ADMIN.
	TPROXY Mode = iota + 1
	// Redirect: the netfilter target REDIRECT rewrites the destination to the listener, and
	// connection tracking remembers the original one.
	Redirect
	// Forward: clients connect to the listener on purpose, and every connection goes to one fixed
	// upstream. It needs no privilege.
	Forward
)

// String gives the name that the command line uses: tproxy, redirect, forward.
func (m Mode) String() string {
	switch m {
	case TPROXY:
		return "tproxy"
	case Redirect:
		return "redirect"
	case Forward:
		return "forward"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseMode reads the name of a mode, in upper or lower case. There is no default.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{TPROXY, Redirect, Forward} {
		if strings.EqualFold(s, m.String()) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q: want tproxy, redirect or forward", s)
}

// MarshalText gives the name of m, which stands for it in JSON.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is ParseMode.
func (m *Mode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMode(string(text))
	return err
}
