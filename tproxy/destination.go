package tproxy

import (
	"net/netip"

	"github.com/tprelay/tprelay/internal/sock"
)

// Destination is where the client of accepted connection fd meant to go. The error is a bare
// unix.Errno.
//
// In TPROXY mode it is the socket's own address. SO_ORIGINAL_DST is not asked: it names the client
// itself when only one direction is exempt from connection tracking (haproxy issue 3192). In
// Redirect mode it is what connection tracking remembers. A client that connected to the listener
// itself gets the listener's own address if its connection is tracked, and ENOENT if not. In
// Forward mode there is no original destination, and the result is the socket's own address.
func Destination(fd int, m Mode, client netip.Addr) (netip.AddrPort, error) {
	if m != Redirect {
		return sock.LocalAddr(fd)
	}
	return sock.OriginalDestination(fd, sock.Family(client))
}
