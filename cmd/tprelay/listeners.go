package main

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// listenAt is a listener to open: its address, and the sockets that systemd has already opened
// for it.
type listenAt struct {
	address netip.AddrPort
	sockets []int
}

// listeners returns the listeners of the command line, with the sockets that systemd passed
// for them. Without --listen it returns those that systemd passed, or those of the program
// before an upgrade. A passed socket that no --listen names is an error: its clients would
// wait for ever.
func (c *runCmd) listeners(passed []passedSocket, before []netip.AddrPort) ([]listenAt, error) {
	var at []listenAt
	for i, l := range c.Listen {
		address, err := sock.NumericZone(l.AddrPort) // as getsockname returns it
		if err != nil {
			return nil, cli.Usagef("--listen %v: interface %q: %w", l, l.Addr().Zone(), err)
		}
		// Port 0 picks a free port at the first start; an upgrade must keep that port.
		if address.Port() == 0 && i < len(before) && before[i].Addr() == address.Addr() {
			address = before[i]
		}
		at = append(at, listenAt{address: address})
	}
	if len(c.Listen) == 0 {
		for _, address := range before {
			at = append(at, listenAt{address: address})
		}
	}
	for _, s := range passed {
		i := slices.IndexFunc(at, func(l listenAt) bool { return l.address == s.address })
		if i < 0 && len(c.Listen) > 0 {
			return nil, cli.Usagef("systemd passed %v, which no --listen names; omit --listen to use the passed sockets", s)
		}
		if i < 0 {
			at, i = append(at, listenAt{address: s.address}), len(at)
		}
		if c.Mode.Mode == tproxy.TPROXY {
			if n, err := unix.GetsockoptInt(s.fd, unix.SOL_IP, unix.IP_TRANSPARENT); err != nil || n == 0 {
				return nil, fmt.Errorf("systemd passed %v, which cannot accept TPROXY connections; its .socket unit needs Transparent=yes", s)
			}
		}
		at[i].sockets = append(at[i].sockets, s.fd)
	}
	if len(at) == 0 {
		return nil, cli.Usagef("--listen ADDR:PORT is missing, and systemd has passed no socket; see tprelay run --help")
	}
	return at, nil
}
