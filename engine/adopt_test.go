package engine_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
)

// adopted is a descriptor that becomes a Go connection.
type adopted struct{ fd int }

func (a adopted) conn(t *testing.T) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(a.fd), "socket")
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return c
}

// accepted is a connection that the test accepted itself: the client's end, and a
// descriptor of the other.
func accepted(t *testing.T) (client *net.TCPConn, fd int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw, err := s.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), fd
}

func TestAdoptSendsThePrefixFirst(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, fd := accepted(t)
		r.keep(client)
		prefix, rest := noise(70_000), noise(1<<20)
		if err := r.Adopt(fd, prefix, netip.MustParseAddrPort(r.server.Addr().String())); err != nil {
			t.Fatal(err)
		}
		server := r.accept()
		sent := sendAll(client, rest, true)
		expect(t, "server", server, append(append([]byte(nil), prefix...), rest...))
		<-sent
		sent = sendAll(server, rest, true)
		expect(t, "client", client, rest)
		<-sent
		r.ended(engine.ReasonEOF, 1)
		if s := r.Stats(); s.Adopted != 1 || s.Accepted != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAdoptShowsThePrefixToHandlers(t *testing.T) {
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict {
		if len(c.Data) < 4 {
			return intercept.Hold
		}
		c.WriteString("<")
		return intercept.Detach
	})
	client, fd := accepted(t)
	r.keep(client)
	if err := r.Adopt(fd, []byte("ab"), netip.MustParseAddrPort(r.server.Addr().String())); err != nil {
		t.Fatal(err)
	}
	server := r.accept()
	<-sendAll(client, []byte("cdef"), true)
	expect(t, "server", server, []byte("<abcdef"))
}

func TestAdoptWithoutListeners(t *testing.T) {
	r := newRig(t, engine.Options{})
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	client, fd := accepted(t)
	defer client.Close()
	defer unix.Close(fd)
	if err := e.Adopt(fd, nil, r.Addrs()[0]); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closed engine: %v", err)
	}
	for _, c := range []struct {
		fd   int
		dest netip.AddrPort
	}{{fd, netip.AddrPort{}}, {-1, r.Addrs()[0]}, {0, netip.MustParseAddrPort("127.0.0.1:0")}} {
		if err := r.Adopt(c.fd, nil, c.dest); err == nil {
			t.Errorf("Adopt(%d, %v) was taken", c.fd, c.dest)
		}
	}
}

// TestAdoptedDuplicateDoesNotLinger: the embedder forgot to close its own descriptor;
// the pair's end must not leave events behind that nobody can stop.
func TestAdoptedDuplicateDoesNotLinger(t *testing.T) {
	r := newRig(t, engine.Options{Loops: 1})
	client, fd := accepted(t)
	r.keep(client)
	dup, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	if err := r.Adopt(fd, nil, netip.MustParseAddrPort(r.server.Addr().String())); err != nil {
		t.Fatal(err)
	}
	server := r.accept()
	exchange(t, client, server, noise(100))
	rst(server)
	r.until("ended", func(s engine.Stats) bool { return s.Active == 0 })
	before := r.Stats()
	client.Write([]byte("anybody?"))
	c, s := r.pair() // the loop has been round
	exchange(t, c, s, noise(10))
	if n := r.Stats().StaleEvents - before.StaleEvents; n > 0 {
		t.Errorf("%d events of a pair that has ended", n)
	}
}
