package epoll_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
)

// patience is how long a test waits for an event that must come, in milliseconds.
const patience = 10_000

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// poller makes a poller that is closed with the test.
func poller(t testing.TB, batch int) *epoll.Poller {
	t.Helper()
	p, err := epoll.New(batch)
	check(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// connection makes a TCP connection over loopback, non-blocking; its ends are
// closed with the test.
func connection(t testing.TB) (near, far *socket) {
	t.Helper()
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(listener)
	check(t, unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(t, unix.Listen(listener, 1))
	addr, err := unix.Getsockname(listener)
	check(t, err)
	near, far = &socket{t, -1}, &socket{t, -1}
	t.Cleanup(near.close)
	t.Cleanup(far.close)
	near.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, unix.Connect(near.fd, addr))
	far.fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	check(t, err)
	check(t, unix.SetNonblock(near.fd, true))
	check(t, unix.SetNonblock(far.fd, true))
	return near, far
}

// socket is one end of a connection.
type socket struct {
	t  testing.TB
	fd int
}

func (s *socket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// reset closes the connection with an RST.
func (s *socket) reset() {
	s.t.Helper()
	check(s.t, unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	s.close()
}

func (s *socket) send(text string) {
	s.t.Helper()
	n, err := unix.Write(s.fd, []byte(text))
	check(s.t, err)
	if n != len(text) {
		s.t.Fatalf("sent %d bytes of %d", n, len(text))
	}
}

// stuff sends until the socket takes no more, and returns how much it took.
func (s *socket) stuff() (total int) {
	s.t.Helper()
	zeroes := make([]byte, 64<<10)
	for {
		n, err := unix.Write(s.fd, zeroes)
		switch err {
		case nil:
			total += n
		case unix.EAGAIN:
			return total
		case unix.EINTR:
		default:
			s.t.Fatal(err)
		}
	}
}

// until waits for an event that satisfies want, and returns it. Others that come
// before it are dropped. Go's own signals end a Wait early, without events.
func until(t testing.TB, p *epoll.Poller, what string, want func(epoll.Event) bool) epoll.Event {
	t.Helper()
	for end := time.Now().Add(patience * time.Millisecond); ; {
		events, err := p.Wait(patience)
		check(t, err)
		for _, ev := range events {
			if want(ev) {
				return ev
			}
		}
		if len(events) == 0 && time.Now().After(end) {
			t.Fatalf("no event that is %s", what)
		}
	}
}

// silent expects that nothing is there.
func silent(t testing.TB, p *epoll.Poller) {
	t.Helper()
	events, err := p.Wait(0)
	check(t, err)
	if len(events) != 0 {
		t.Fatalf("unexpected events: %+v", events)
	}
}

// settle takes the events that are there.
func settle(t testing.TB, p *epoll.Poller) {
	t.Helper()
	for {
		events, err := p.Wait(0)
		check(t, err)
		if len(events) == 0 {
			return
		}
	}
}
