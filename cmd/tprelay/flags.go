package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
)

// modeFlag is --mode.
type modeFlag struct{ tproxy.Mode }

// UnmarshalText reads the name of a mode.
func (m *modeFlag) UnmarshalText(text []byte) (err error) {
	m.Mode, err = tproxy.ParseMode(string(text))
	return err
}

// spoofFlag is --spoof.
type spoofFlag struct{ tproxy.Spoof }

// UnmarshalText reads a policy.
func (s *spoofFlag) UnmarshalText(text []byte) (err error) {
	s.Spoof, err = tproxy.ParseSpoof(string(text))
	return err
}

// listenFlag is --listen: an address and a port. Without the address it is the
// IPv6 wildcard, which takes IPv4 too.
type listenFlag struct{ netip.AddrPort }

// UnmarshalText reads ADDR:PORT or :PORT.
func (l *listenFlag) UnmarshalText(text []byte) error {
	full := string(text)
	if strings.HasPrefix(full, ":") {
		full = "[::]" + full
	}
	address, err := netip.ParseAddrPort(full)
	if err != nil {
		return fmt.Errorf("%q: want ADDR:PORT with an IP address, such as 127.0.0.1:9091, [::1]:9091 or :9091 for all addresses", text)
	}
	l.AddrPort = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	return nil
}

// markFlag is --mark, in decimal or, with 0x, hexadecimal.
type markFlag uint32

// UnmarshalText reads a mark.
func (m *markFlag) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 0, 32)
	if err != nil {
		return fmt.Errorf("%q: want a number up to 0xffffffff, such as 0x74 or 116", text)
	}
	*m = markFlag(n)
	return nil
}
