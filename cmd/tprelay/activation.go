package main

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// passedSocket is a listening socket that systemd opened for this process (sd_listen_fds(3)).
type passedSocket struct {
	fd      int
	name    string // FileDescriptorName= of its unit
	address netip.AddrPort
}

func (s passedSocket) String() string { return fmt.Sprintf("socket %s (%v)", s.name, s.address) }

// passedSockets returns the sockets that systemd passed. It clears the environment variables
// that name them, so that programs started by this process do not use them.
func passedSockets() ([]passedSocket, error) {
	var sockets []passedSocket
	for _, f := range activation.Files(true) {
		// A duplicate, because the garbage collector closes the descriptor of f.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("systemd passed %s: %w", f.Name(), err)
		}
		s := passedSocket{fd: fd, name: f.Name()}
		listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err == nil {
			s.address, err = sock.LocalAddr(fd)
		}
		if err != nil || listening == 0 || !s.address.IsValid() {
			return nil, fmt.Errorf("systemd passed %s, which is not a listening TCP socket; its .socket unit needs ListenStream=ADDR:PORT", f.Name())
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// takePassed removes the socket for address from the list and returns it. ok: there was one.
func takePassed(sockets *[]passedSocket, address netip.AddrPort) (s passedSocket, ok bool) {
	i := slices.IndexFunc(*sockets, func(s passedSocket) bool { return s.address == address })
	if i < 0 {
		return s, false
	}
	s = (*sockets)[i]
	*sockets = slices.Delete(*sockets, i, i+1)
	return s, true
}
