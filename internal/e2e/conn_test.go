package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

const mebibyte = 1 << 20

// listener is a server on h3 whose connections the test holds itself.
type listener struct {
	*net.TCPListener
	g  *gateway
	at netip.AddrPort
}

// listen listens on h3, on a port of the kernel's choice, for both families.
func (g *gateway) listen() *listener {
	g.t.Helper()
	return g.listenOn(g.H3, netip.AddrPortFrom(g.server(), 0))
}

func (g *gateway) listenOn(h *netlab.Host, at netip.AddrPort) *listener {
	g.t.Helper()
	l, err := h.Listen("tcp", at.String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return &listener{l.(*net.TCPListener), g, l.Addr().(*net.TCPAddr).AddrPort()}
}

// accept takes the next connection.
func (l *listener) accept() *net.TCPConn {
	l.g.t.Helper()
	l.SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		l.g.t.Fatal(err)
	}
	return l.g.keep(c)
}

// serve calls handle for every connection until the test ends; connections are
// closed after it.
func (l *listener) serve(handle func(*net.TCPConn)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				handle(c.(*net.TCPConn))
			})
		}
	})
	l.g.t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}

// echo sends back what comes.
func echo(c *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// dial connects from h1. Through the relay this says nothing about the server yet.
func (g *gateway) dial(to netip.AddrPort) *net.TCPConn {
	g.t.Helper()
	c, err := g.tryDial(to)
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

func (g *gateway) tryDial(to netip.AddrPort) (*net.TCPConn, error) {
	if via, ok := g.via[to]; ok {
		to = via
	}
	c, err := g.H1.Dial(within(g.t), "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return g.keep(c), nil
}

// dialFrom is dial from a port of h1.
func (g *gateway) dialFrom(port uint16, to netip.AddrPort) *net.TCPConn {
	g.t.Helper()
	c, err := g.H1.DialFrom(within(g.t), "tcp", netip.AddrPortFrom(g.client(), port).String(), to.String())
	if err != nil {
		g.t.Fatal(err)
	}
	return g.keep(c)
}

// pair is a connection through the relay, both ends in hand.
func (g *gateway) pair(l *listener) (client, server *net.TCPConn) {
	g.t.Helper()
	client = g.dial(l.at)
	return client, l.accept()
}

func (g *gateway) keep(c net.Conn) *net.TCPConn {
	c.SetDeadline(time.Now().Add(patience))
	g.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// local and remote are the addresses of a connection's ends.
func local(c net.Conn) netip.AddrPort  { return plain(c.LocalAddr()) }
func remote(c net.Conn) netip.AddrPort { return plain(c.RemoteAddr()) }

func plain(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// stream is n bytes that look like nothing else, made as they are read.
func stream(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

// digest is what is compared of a stream.
type digest struct {
	bytes int64
	sum   [sha256.Size]byte
}

func (d digest) String() string { return fmt.Sprintf("%d bytes, sum %x", d.bytes, d.sum[:4]) }

// digestOf reads r to its end.
func digestOf(r io.Reader) (digest, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, onlyReader{r}, make([]byte, 64<<10))
	return digest{n, [sha256.Size]byte(h.Sum(nil))}, err
}

// onlyReader hides every other way to copy, so that bytes are really read.
type onlyReader struct{ io.Reader }

// send writes the stream and, when closing, a FIN.
func send(c *net.TCPConn, r io.Reader, closing bool) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, 64<<10))
		if err == nil && closing {
			err = c.CloseWrite()
		}
		done <- err
	}()
	return done
}

// expect reads to a clean end, and wants n bytes of the stream of that seed.
func expect(t *testing.T, who string, c *net.TCPConn, seed byte, n int64) {
	t.Helper()
	want, _ := digestOf(stream(seed, n))
	got, err := digestOf(c)
	if err != nil {
		t.Fatalf("%s: after %d of %d bytes: %v", who, got.bytes, n, err)
	}
	if got != want {
		t.Fatalf("%s: got %v; want %v", who, got, want)
	}
}

// expectReset reads until the connection is reset, and gives the number of bytes
// that came before.
func expectReset(t *testing.T, who string, c *net.TCPConn) int64 {
	t.Helper()
	n, err := io.Copy(io.Discard, onlyReader{c})
	if !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("%s: after %d bytes: %v, want connection reset", who, n, err)
	}
	return n
}

// dialIsReset connects from h1 to where nobody serves. The relay has taken the
// connection before it knows, so what the client sees is a reset; it may come
// before connect(2) has returned, but it is neither a refusal nor a clean end.
func (g *gateway) dialIsReset(to netip.AddrPort) {
	g.t.Helper()
	g.dialFromIsReset(g.H1, to)
}

// dialFromIsReset is dialIsReset from another host.
func (g *gateway) dialFromIsReset(h *netlab.Host, to netip.AddrPort) {
	g.t.Helper()
	ctx, cancel := contextWithPatience()
	defer cancel()
	c, err := h.Dial(ctx, "tcp", to.String())
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		var n int
		n, err = c.Read(make([]byte, 1))
		if n != 0 {
			g.t.Fatalf("%v sent something", to)
		}
	}
	if !errors.Is(err, unix.ECONNRESET) {
		g.t.Fatalf("%v: %v, want connection reset", to, err)
	}
}

// knocker is a connection that was served, or reset.
type knocker struct {
	*net.TCPConn // nil if it was reset while it was made
	served       bool
}

func (c *knocker) Close() {
	if c.TCPConn != nil {
		c.TCPConn.Close()
	}
}

// knock connects to an echo server from an address of h1, and sees whether it is served or
// reset.
func (g *gateway) knock(from, to netip.AddrPort) *knocker {
	g.t.Helper()
	conn, err := g.H1.DialFrom(within(g.t), "tcp", from.String(), to.String())
	if errors.Is(err, unix.ECONNRESET) {
		return &knocker{}
	}
	if err != nil {
		g.t.Fatal(err)
	}
	c := &knocker{TCPConn: g.keep(conn)}
	got := make([]byte, 5)
	if _, err = c.Write([]byte("knock")); err == nil {
		_, err = io.ReadFull(c, got)
	}
	switch {
	case err == nil && string(got) == "knock":
		c.served = true
	case !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE):
		g.t.Fatalf("%v to %v: %q, %v", from, to, got, err)
	}
	return c
}

// rst makes closing c send an RST.
func rst(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
