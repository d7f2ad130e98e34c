package twin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

// socket is a TCP socket of a host. Its calls are plain system calls, so that an end notes what it
// was told by which of them; Go's poller waits for them.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// newSocket makes a socket in the host's namespace, to which it belongs for good.
func newSocket(h *netlab.Host, v6 bool, o options) (fd int, err error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	err = h.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("%s: socket: %w", h.Name, err)
	}
	if err := o.apply(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: setsockopt: %w", h.Name, err)
	}
	return fd, nil
}

// apply sets the options. Urgent data stays in the stream: see the table of allowed differences.
func (o options) apply(fd int) error {
	set := func(level, name, value int) error {
		if value == 0 {
			return nil
		}
		return unix.SetsockoptInt(fd, level, name, value)
	}
	nodelay := 0
	if o.NoDelay {
		nodelay = 1
	}
	err := errors.Join(
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		set(unix.SOL_SOCKET, unix.SO_OOBINLINE, 1),
		set(unix.SOL_SOCKET, unix.SO_RCVBUF, o.RcvBuf),
		set(unix.SOL_SOCKET, unix.SO_SNDBUF, o.SndBuf),
		set(unix.IPPROTO_TCP, unix.TCP_MAXSEG, o.MSS),
		set(unix.IPPROTO_TCP, unix.TCP_NODELAY, nodelay))
	if o.Linger > 0 {
		err = errors.Join(err, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(o.Linger)}))
	}
	return err
}

func wrap(fd int, name string) (*socket, error) {
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &socket{file, raw}, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// listen listens on a port of the host.
func listen(h *netlab.Host, at netip.AddrPort, o options) (*socket, error) {
	fd, err := newSocket(h, at.Addr().Is6(), o)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, sockaddr(at)); err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: listen on %v: %w", h.Name, at, err)
	}
	return wrap(fd, "listener")
}

// accept takes a connection, until the limit.
func (s *socket) accept(o options, limit time.Time) (*socket, error) {
	s.file.SetReadDeadline(limit)
	var fd int
	var err error
	outside := s.raw.Read(func(l uintptr) bool {
		for {
			fd, _, err = unix.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != unix.EINTR && err != unix.ECONNABORTED {
				return err != unix.EAGAIN
			}
		}
	})
	if outside != nil {
		return nil, outside
	}
	if err != nil {
		return nil, err
	}
	o.RcvBuf, o.SndBuf, o.MSS = 0, 0, 0 // inherited from the listener
	if err := o.apply(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return wrap(fd, "server")
}

// dial connects, until the limit. The error is what connect(2) was told. A connection that was
// opened and reset since is none: early then says that the socket has told of its RST.
func dial(h *netlab.Host, from, to netip.AddrPort, o options, limit time.Time) (s *socket, early bool, err error) {
	fd, err := newSocket(h, to.Addr().Is6(), o)
	if err != nil {
		return nil, false, err
	}
	if from.IsValid() {
		err = unix.Bind(fd, sockaddr(from))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, false, err
	}
	if s, err = wrap(fd, "client"); err != nil {
		return nil, false, err
	}
	s.file.SetWriteDeadline(limit)
	outside := s.raw.Write(func(fd uintptr) bool {
		if s.state() == synSent {
			return false // wait
		}
		var errno int
		if errno, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		if early = err == unix.ECONNRESET; early {
			err = nil
		}
		return true
	})
	if err = errors.Join(outside, err); err != nil {
		s.file.Close()
		return nil, false, err
	}
	return s, early, nil
}

// control calls f with the descriptor; closed sockets give false.
func (s *socket) control(f func(fd int)) bool {
	return s.raw.Control(func(fd uintptr) { f(int(fd)) }) == nil
}

// queue asks for SIOCINQ or SIOCOUTQ.
func (s *socket) queue(request uint) (n int64) {
	s.control(func(fd int) {
		if v, err := unix.IoctlGetInt(fd, request); err == nil {
			n = int64(v)
		}
	})
	return n
}

// States of include/net/tcp_states.h.
const (
	established = 1
	synSent     = 2
	finWait1    = 4
	finWait2    = 5
	tcpClose    = 7
	closeWait   = 8
)

func (s *socket) state() (state uint8) {
	s.control(func(fd int) {
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state
}
