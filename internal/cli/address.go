package cli

import (
	"fmt"
	"net/netip"
	"strings"
)

// Listen is a flag or argument with an address to listen on. :PORT stands for the IPv6
// wildcard, which accepts IPv4 too.
type Listen struct{ netip.AddrPort }

// UnmarshalText parses ADDR:PORT or :PORT.
func (l *Listen) UnmarshalText(text []byte) error {
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
