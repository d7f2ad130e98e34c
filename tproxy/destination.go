package tproxy

import (
	"net/netip"

	"github.com/tprelay/tprelay/internal/sock"
)

// Destination is where the client of accepted connection fd meant to go. In
// TPROXY mode that is the socket's own address, and never SO_ORIGINAL_DST, which
// names the client itself when only one way is exempt from connection tracking
// (haproxy issue 3192). In Redirect mode it is what connection tracking
// remembers. A client that connected to the listener on purpose yields the
// listener's own address if its connection is tracked, and ENOENT if it is not.
// Forward mode has no original destination: it is the
// socket's own address too.
func Destination(fd int, m Mode, client netip.Addr) (netip.AddrPort, error) {
	if m != Redirect {
		return sock.LocalAddr(fd)
	}
	return sock.OriginalDestination(fd, sock.Family(client))
}
