package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/tproxy"
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

// accepted is a connection that the test accepted itself: the client's end, and the other.
func accepted(t *testing.T) (client, conn *net.TCPConn) {
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
	t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// adopt gives conn to the relay, with the rig's server as the destination, and closes it.
func (r *rig) adopt(conn *net.TCPConn, prefix []byte) {
	r.t.Helper()
	a := engine.Adoption{Destination: r.server.Addr().(*net.TCPAddr).AddrPort(), Prefix: prefix}
	if err := r.Adopt(conn, a); err != nil {
		r.t.Fatal(err)
	}
	conn.Close()
}

func TestAdoptSendsThePrefixFirst(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, conn := accepted(t)
		r.keep(client)
		prefix, rest := noise(70_000), noise(1<<20)
		r.adopt(conn, prefix)
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
	client, conn := accepted(t)
	r.keep(client)
	r.adopt(conn, []byte("ab"))
	server := r.accept()
	<-sendAll(client, []byte("cdef"), true)
	expect(t, "server", server, []byte("<abcdef"))
}

// TestCollectedFilesTakeNothingWithThem: when an os.File is garbage-collected, its descriptor is
// closed, and the number may be used again. The engine's own duplicate is not affected.
func TestCollectedFilesTakeNothingWithThem(t *testing.T) {
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	to := server.Addr().(*net.TCPAddr).AddrPort()
	server.Close()
	front, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var collected atomic.Int32
	file := func(open func() (*os.File, error)) *os.File {
		f, err := open()
		if err != nil {
			t.Fatal(err)
		}
		runtime.AddCleanup(f, func(int) { collected.Add(1) }, 0)
		return f
	}
	ln := engine.Listener{Mode: tproxy.Forward, Upstream: to, Sockets: []syscall.Conn{file(front.File)}}
	r := newRig(t, engine.Options{Listeners: []engine.Listener{ln}})
	front.Close()
	ln = engine.Listener{}
	client, conn := accepted(t)
	r.keep(client)
	a := engine.Adoption{Destination: r.server.Addr().(*net.TCPAddr).AddrPort()}
	if err := r.Adopt(file(conn.File), a); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for end := time.Now().Add(patience); collected.Load() < 2; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(end) {
			t.Fatal("somebody still holds the files")
		}
	}
	runtime.GC() // their finalizers have run
	exchange(t, client, r.accept(), noise(1000))
	r.dialReset() // nobody is there: but somebody accepted
}

// settings are what an adoption changes on a socket.
func settings(t *testing.T, conn syscall.Conn) string {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var text string
	raw.Control(func(n uintptr) {
		linger, _ := unix.GetsockoptLinger(int(n), unix.SOL_SOCKET, unix.SO_LINGER)
		flags, _ := unix.FcntlInt(n, unix.F_GETFL, 0)
		text = fmt.Sprint("flags ", flags, " linger ", linger)
		for _, o := range [][2]int{
			{unix.SOL_SOCKET, unix.SO_OOBINLINE}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
			{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		} {
			value, err := unix.GetsockoptInt(int(n), o[0], o[1])
			text += fmt.Sprint(" ", o, "=", value, err)
		}
	})
	return text
}

// TestFailedAdoptLeavesTheSocketAsItWas: the caller may go on with the connection.
func TestAdoptOfNothingIsAnError(t *testing.T) {
	r := newRig(t, engine.Options{})
	to := r.server.Addr().(*net.TCPAddr).AddrPort()
	for name, conn := range map[string]syscall.Conn{"nil": nil, "*net.TCPConn": (*net.TCPConn)(nil), "*os.File": (*os.File)(nil)} {
		err := r.Adopt(conn, engine.Adoption{Destination: to})
		if err == nil || !strings.Contains(err.Error(), "adopt: the connection is nil") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNilHandlerEndsItsPairAlone: a nil in an interface is a handler that Go cannot call. Its pair
// is reset, with one line in the log for all of them.
func TestNilHandlerEndsItsPairAlone(t *testing.T) {
	for name, h := range map[string]intercept.Handler{"function": intercept.HandlerFunc(nil), "pointer": (*stateful)(nil)} {
		t.Run(name, func(t *testing.T) {
			log := new(logged)
			r := newRig(t, engine.Options{Loops: 1, Logger: log.logger(), Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
				return intercept.Decision{Upstream: h}
			})})
			for n := range uint64(2) {
				client := r.dial()
				client.Write(noise(10))
				expectReset(t, "client", client)
				r.until("the end", func(s engine.Stats) bool { return s.Ended[engine.ReasonPanicked] == n+1 && s.Active == 0 })
			}
			if lines := log.lines("panicked"); len(lines) != 1 || !strings.Contains(lines[0], "nil pointer") {
				t.Errorf("logged %d lines: %q", len(lines), lines)
			}
		})
	}
}

// stateful is a handler whose methods need a value.
type stateful struct{ bytes int }

func (s *stateful) Handle(c *intercept.Chunk) intercept.Verdict {
	s.bytes += len(c.Data)
	return intercept.Forward
}

func TestFailedAdoptLeavesTheSocketAsItWas(t *testing.T) {
	o := engine.Options{KeepAlive: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Count: 3}, UserTimeout: time.Minute, MemoryLimit: 1 << 20}
	r := newRig(t, o)
	to := r.server.Addr().(*net.TCPAddr).AddrPort()
	ended, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended.Close()
	blocking := func(conn interface{ File() (*os.File, error) }) syscall.Conn {
		f, err := conn.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		f.Fd() // makes it blocking
		return f
	}
	client, conn := accepted(t)
	defer client.Close()
	packets, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for _, c := range []struct {
		what string
		conn syscall.Conn
		e    *engine.Engine
		a    engine.Adoption
		want error
	}{
		{"closed engine", blocking(conn), ended, engine.Adoption{Destination: to}, engine.ErrClosed},
		{"no destination", blocking(conn), r.Engine, engine.Adoption{}, nil},
		{"port 0", blocking(conn), r.Engine, engine.Adoption{Destination: netip.AddrPortFrom(to.Addr(), 0)}, nil},
		{"large prefix", blocking(conn), r.Engine, engine.Adoption{Destination: to, Prefix: noise(2 << 20)}, engine.ErrMemory},
		{"datagrams", blocking(packets), r.Engine, engine.Adoption{Destination: to}, nil},
	} {
		before := settings(t, c.conn)
		err := c.e.Adopt(c.conn, c.a)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		if after := settings(t, c.conn); after != before {
			t.Errorf("%s:\n%s, before\n%s", c.what, after, before)
		}
	}
	if err := r.Adopt(os.Stdin, engine.Adoption{Destination: to}); err == nil {
		t.Error("standard input was taken for a connection")
	}
}

// TestFailedNewLeavesListenersAsTheyWere: accepted connections inherit a listener's options.
func TestFailedNewLeavesListenersAsTheyWere(t *testing.T) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	other, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before := settings(t, ln)
	o := engine.Options{Listeners: []engine.Listener{{Mode: tproxy.Redirect, Sockets: []syscall.Conn{ln, other}}}, KeepAlive: net.KeepAliveConfig{Enable: true, Idle: time.Minute}}
	if _, err := engine.New(o); err == nil {
		t.Fatal("sockets of two addresses were taken for one listener")
	}
	if after := settings(t, ln); after != before {
		t.Errorf("%s, before\n%s", after, before)
	}
}

// TestAdoptOnADrainingEngineFails: Run would not wait for the pair.
func TestAdoptOnADrainingEngineFails(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair() // it drains until this one ends
	r.stop()
	late, conn := accepted(t)
	defer late.Close()
	var err error
	for end := time.Now().Add(patience); !errors.Is(err, engine.ErrDraining); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("Adopt: %v", err)
		}
		if err == nil { // the context's end has not got around yet
			late, conn = accepted(t)
			defer late.Close()
		}
		err = r.Adopt(conn, engine.Adoption{Destination: r.server.Addr().(*net.TCPAddr).AddrPort()})
	}
	exchange(t, late, conn, noise(10))
	exchange(t, client, server, noise(10))
}

// TestAdoptPrefixesCountTowardsTheMemoryLimit: also while the loop has not taken the pair yet.
func TestAdoptPrefixesCountTowardsTheMemoryLimit(t *testing.T) {
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	e, err := engine.New(engine.Options{MemoryLimit: 1 << 20, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, server: server, Engine: e}
	a := engine.Adoption{Destination: server.Addr().(*net.TCPAddr).AddrPort(), Prefix: noise(600 << 10)}
	_, first := accepted(t)
	_, second := accepted(t)
	if err := e.Adopt(first, a); err != nil {
		t.Fatal(err)
	}
	if err := e.Adopt(second, a); !errors.Is(err, engine.ErrMemory) {
		t.Fatalf("the second: %v", err)
	}
	r.run()
	defer r.end()
	got := make([]byte, len(a.Prefix))
	if _, err := io.ReadFull(r.accept(), got); err != nil {
		t.Fatal(err)
	}
	r.until("free memory", func(s engine.Stats) bool { return s.Memory == 0 })
	r.adopt(second, a.Prefix)
	if _, err := io.ReadFull(r.accept(), got); err != nil {
		t.Fatal(err)
	}
}

// TestAdoptedClientIsResetThoughItsConnIsOpen: closing only the engine's duplicate sends nothing.
func TestAdoptedClientIsResetThoughItsConnIsOpen(t *testing.T) {
	r := newRig(t, engine.Options{Loops: 1})
	client, conn := accepted(t) // conn is open until the end of the test
	r.keep(client)
	if err := r.Adopt(conn, engine.Adoption{Destination: r.server.Addr().(*net.TCPAddr).AddrPort()}); err != nil {
		t.Fatal(err)
	}
	server := r.accept()
	exchange(t, client, server, noise(100))
	rst(server)
	expectReset(t, "client", client)
	r.until("ended", func(s engine.Stats) bool { return s.Active == 0 })
	before := r.Stats()
	c, s := r.pair() // the loop has been round
	exchange(t, c, s, noise(10))
	if n := r.Stats().StaleEvents - before.StaleEvents; n > 0 {
		t.Errorf("%d events of a pair that has ended", n)
	}
}

// TestMultipathConnections: Go's listeners speak Multipath TCP by default, whose sockets lack
// options and may refuse splice.
func TestMultipathConnections(t *testing.T) {
	listen := func(t *testing.T) *net.TCPListener {
		var c net.ListenConfig
		c.SetMultipathTCP(true)
		ln, err := c.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln.(*net.TCPListener)
	}
	var multipath net.Dialer
	multipath.SetMultipathTCP(true)
	dial := func(t *testing.T, ln net.Addr) *net.TCPConn {
		c, err := multipath.Dial("tcp", ln.String())
		if err != nil {
			t.Fatal(err)
		}
		if is, err := c.(*net.TCPConn).MultipathTCP(); err != nil || !is {
			c.Close()
			t.Skip("no Multipath TCP here")
		}
		return c.(*net.TCPConn)
	}
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		o.UserTimeout = time.Minute // which there is not
		try := func(r *rig, client *net.TCPConn) {
			r.keep(client)
			server := r.accept()
			up, down := noise(3<<20), noise(3<<20+1)
			sent, replied := sendAll(client, up, true), sendAll(server, down, true)
			done := make(chan []byte, 1)
			go func() {
				got, _ := io.ReadAll(client)
				done <- got
			}()
			expect(t, "server", server, up)
			if got := <-done; !bytes.Equal(got, down) {
				t.Errorf("client: got %d of %d bytes", len(got), len(down))
			}
			<-sent
			<-replied
		}
		t.Run("adopted", func(t *testing.T) {
			r := newRig(t, o)
			ln := listen(t)
			defer ln.Close()
			client := dial(t, ln.Addr())
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			r.adopt(conn.(*net.TCPConn), nil)
			try(r, client)
			r.ended(engine.ReasonEOF, 1)
		})
		t.Run("accepted", func(t *testing.T) {
			server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			ln := listen(t)
			o := o
			o.Listeners = []engine.Listener{{Mode: tproxy.Forward, Upstream: server.Addr().(*net.TCPAddr).AddrPort(), Sockets: []syscall.Conn{ln}}}
			r := newRig(t, o)
			ln.Close()
			r.server.Close()
			r.server = server
			t.Cleanup(func() { server.Close() })
			try(r, dial(t, ln.Addr()))
			try(r, r.dial()) // plain TCP
			r.ended(engine.ReasonEOF, 2)
			reset := dial(t, ln.Addr())
			r.keep(reset)
			rst(r.accept())
			expectReset(t, "client", reset)
		})
	})
}

// TestPlainConnectionsOfMultipathListenersKeepUrgentBytes: they do not inherit SO_OOBINLINE, which
// the listener cannot have.
func TestPlainConnectionsOfMultipathListenersKeepUrgentBytes(t *testing.T) {
	var c net.ListenConfig
	c.SetMultipathTCP(true)
	front, err := c.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, engine.Options{Loops: 1, Listeners: []engine.Listener{{
		Mode: tproxy.Forward, Upstream: server.Addr().(*net.TCPAddr).AddrPort(), Sockets: []syscall.Conn{front.(*net.TCPListener)},
	}}})
	front.Close()
	r.server.Close()
	r.server = server
	t.Cleanup(func() { server.Close() })
	client, to := r.pair() // what comes before accept may lose its place: only the listener could keep it
	raw, err := client.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, b := range []string{"a", "b", "c"} {
			if err = unix.Sendto(int(fd), []byte(b), unix.MSG_OOB, nil); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	<-sendAll(client, []byte("end"), true)
	expect(t, "server", to, []byte("abcend"))
}
