package splice_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/splice"
)

// patience is how long a test waits for what must come, in milliseconds.
const patience = 10_000

// socket is one end of a TCP connection over loopback, non-blocking, with
// TCP_NODELAY. Its methods end the test when they fail.
type socket struct {
	t  testing.TB
	fd int
}

// connection makes a TCP connection; its ends are closed with the test.
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
	for _, s := range []*socket{near, far} {
		check(t, unix.SetNonblock(s.fd, true))
		s.set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return near, far
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *socket) set(level, option, value int) {
	s.t.Helper()
	check(s.t, unix.SetsockoptInt(s.fd, level, option, value))
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

// shutdown ends the outgoing way with a FIN.
func (s *socket) shutdown() {
	s.t.Helper()
	check(s.t, unix.Shutdown(s.fd, unix.SHUT_WR))
}

// ready waits for any of the given poll events.
func (s *socket) ready(events int16) {
	s.t.Helper()
	for {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: events}}
		n, err := unix.Poll(fds, patience)
		if err == unix.EINTR {
			continue
		}
		check(s.t, err)
		if n == 0 {
			s.t.Fatalf("descriptor %d: no event of %#x", s.fd, events)
		}
		return
	}
}

// writable: the socket takes bytes now.
func (s *socket) writable() bool {
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(fds, 0)
	return fds[0].Revents&unix.POLLOUT != 0
}

func (s *socket) send(data []byte) {
	s.t.Helper()
	for len(data) > 0 {
		n, err := unix.Write(s.fd, data)
		switch err {
		case nil:
			data = data[n:]
		case unix.EAGAIN:
			s.ready(unix.POLLOUT)
		case unix.EINTR:
		default:
			s.t.Fatal(err)
		}
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

// receive reads exactly n bytes.
func (s *socket) receive(n int) []byte {
	s.t.Helper()
	data := make([]byte, n)
	for got := 0; got < n; {
		m, err := unix.Read(s.fd, data[got:])
		switch {
		case err == unix.EAGAIN:
			s.ready(unix.POLLIN)
		case err == unix.EINTR:
		case err != nil:
			s.t.Fatal(err)
		case m == 0:
			s.t.Fatalf("end of stream after %d of %d bytes", got, n)
		default:
			got += m
		}
	}
	return data
}

// queued is the number of bytes that have come and were not read.
func (s *socket) queued() int { return s.ioctl(unix.TIOCINQ) }

// unsent is the number of bytes that the socket took and has not sent yet.
func (s *socket) unsent() int { return s.ioctl(unix.SIOCOUTQNSD) }

func (s *socket) ioctl(request uint) int {
	s.t.Helper()
	n, err := unix.IoctlGetInt(s.fd, request)
	check(s.t, err)
	return n
}

// arrived waits until n bytes have come.
func (s *socket) arrived(n int) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); s.queued() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d of %d bytes came", s.queued(), n)
		}
	}
}

// borrow makes a pool for one test and takes a pipe from it.
func borrow(t testing.TB, size int) *splice.Pipe {
	t.Helper()
	pool := splice.NewPool(splice.Limits{Size: size, Pipes: 1, Keep: 0})
	id, ok := pool.Get()
	if !ok {
		t.Fatal("no pipe to be had")
	}
	t.Cleanup(func() { pool.Put(id); pool.Close() })
	return pool.Pipe(id)
}

// fill expects one Fill to end in the given way.
func fill(t testing.TB, p *splice.Pipe, source, max int, want splice.Status) int {
	t.Helper()
	n, st, err := p.Fill(source, max)
	if st != want || (err != nil) != (want == splice.Failed) || (n > 0) != (want == splice.Moved) {
		t.Fatalf("Fill: %d bytes, status %d, error %v; want status %d", n, st, err, want)
	}
	return n
}

// drain expects one Drain to end in the given way.
func drain(t testing.TB, p *splice.Pipe, sink int, want splice.Status) int {
	t.Helper()
	n, st, err := p.Drain(sink)
	if st != want || (err != nil) != (want == splice.Failed) {
		t.Fatalf("Drain: %d bytes, status %d, error %v; want status %d", n, st, err, want)
	}
	return n
}

// pattern is n bytes that differ from their neighbours and from what comes 256 later.
func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*7 + i>>8*13 + i>>16)
	}
	return data
}
