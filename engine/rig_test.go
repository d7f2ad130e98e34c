package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/tproxy"
)

// patience bounds every wait of the tests. It is not a measure of anything.
const patience = 60 * time.Second

// rig is a relay in forward mode on loopback, in front of a listener whose
// connections the test holds itself.
type rig struct {
	*engine.Engine
	t      testing.TB
	server *net.TCPListener
	stop   context.CancelFunc
	done   chan error

	listener engine.Listener // with the real port

	raw int // the server's listening socket, for rawPair
	to  unix.SockaddrInet4
}

// newRig starts a relay. When the test ends it is drained, and nothing of it may
// be left.
func newRig(t testing.TB, o engine.Options) *rig {
	t.Helper()
	leak.Check(t)
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, server: server}
	if len(o.Listeners) == 0 {
		o.Listeners = []engine.Listener{{
			Address:  netip.MustParseAddrPort("127.0.0.1:0"),
			Mode:     tproxy.Forward,
			Upstream: server.Addr().(*net.TCPAddr).AddrPort(),
		}}
	}
	r.start(o)
	t.Cleanup(func() {
		server.Close()
		r.end()
	})
	return r
}

func (r *rig) start(o engine.Options) {
	r.t.Helper()
	var err error
	if r.Engine, err = engine.New(o); err != nil {
		r.t.Fatal(err)
	}
	if len(o.Listeners) > 0 {
		r.listener = o.Listeners[0]
		r.listener.Address, r.listener.Sockets = r.Addrs()[0], nil
	}
	r.run()
}

// run lets the engine work.
func (r *rig) run() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan error, 1)
	go func(e *engine.Engine, done chan<- error) { done <- e.Run(ctx) }(r.Engine, r.done)
	for r.Stats().Waits == 0 {
		// When Run has begun, this waits for an answer of every loop: a leak check that comes next
		// must see all goroutines.
		r.Pairs(func(engine.PairInfo) bool { return true })
		time.Sleep(time.Millisecond)
	}
}

// end closes the engine and checks its last account.
func (r *rig) end() {
	r.t.Helper()
	r.Close()
	r.stop()
	if err := r.wait(); err != nil && !errors.Is(err, engine.ErrClosed) {
		r.t.Errorf("Run: %v", err)
	}
	s := r.Stats()
	if s.Active != 0 || s.Pending != 0 || s.Memory != 0 || s.PipesInUse != 0 || s.PipesIdle != 0 || s.Buffers != 0 {
		r.t.Errorf("left behind: %+v", s)
	}
}

func (r *rig) wait() error {
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(patience):
		return errors.New("Run did not return")
	}
}

func (r *rig) address() string { return r.Addrs()[0].String() }

// dial connects through the relay; the pair need not stand yet.
func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.address(), patience)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.keep(c)
}

// dialReset connects and expects to be reset, which may come as fast as the
// connection itself.
func (r *rig) dialReset() {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.address())
	r.dialResetAt(net.JoinHostPort("127.0.0.1", port))
}

func (r *rig) dialResetAt(address string) {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		if got := expectReset(r.t, "client", r.keep(c)); len(got) > 0 {
			r.t.Errorf("%d bytes from nowhere", len(got))
		}
	} else if !errors.Is(err, unix.ECONNRESET) {
		r.t.Fatal(err)
	}
}

// accept takes the next connection at the server.
func (r *rig) accept() *net.TCPConn {
	r.t.Helper()
	r.server.SetDeadline(time.Now().Add(patience))
	c, err := r.server.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.keep(c)
}

// pair is a connection through the relay, both ends in hand.
func (r *rig) pair() (client, server *net.TCPConn) {
	r.t.Helper()
	client = r.dial()
	return client, r.accept()
}

func (r *rig) keep(c net.Conn) *net.TCPConn {
	c.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// until waits for what Stats must show.
func (r *rig) until(what string, ok func(engine.Stats) bool) engine.Stats {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s := r.Stats(); ok(s) {
			return s
		}
	}
	r.t.Fatalf("never came: %s: %+v", what, r.Stats())
	return engine.Stats{}
}

func (r *rig) ended(reason engine.Reason, n uint64) {
	r.t.Helper()
	r.until(reason.String(), func(s engine.Stats) bool { return s.Ended[reason] == n && s.Active == 0 })
}

// only is the one pair that there is.
func (r *rig) only() (info engine.PairInfo) {
	r.t.Helper()
	n := 0
	r.Pairs(func(i engine.PairInfo) bool { info, n = i, n+1; return true })
	if n != 1 {
		r.t.Fatalf("%d pairs, want 1", n)
	}
	return info
}

// openDescriptors is how many descriptors this process has.
func openDescriptors() int { return len(leak.Descriptors()) }

// noise is n bytes that look like nothing else.
func noise(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(n)})
	src.Read(b)
	return b
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

// sendAll writes data and, when closing, a FIN.
func sendAll(c *net.TCPConn, data []byte, closing bool) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil && closing {
			err = c.CloseWrite()
		}
		done <- err
	}()
	return done
}

// expect reads until the stream ends cleanly and compares.
func expect(t testing.TB, who string, c *net.TCPConn, want []byte) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%s: after %d of %d bytes: %v", who, len(got), len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: got %d bytes, sum %x; want %d, sum %x", who, len(got), sum(got), len(want), sum(want))
	}
}

// expectReset reads until the connection is reset, and gives what came before.
func expectReset(t testing.TB, who string, c *net.TCPConn) []byte {
	t.Helper()
	got, err := io.ReadAll(c)
	if !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("%s: after %d bytes: %v, want connection reset", who, len(got), err)
	}
	return got
}

// rst makes closing c send an RST.
func rst(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// onEveryPath runs f with each way that bytes can travel.
func onEveryPath(t *testing.T, f func(t *testing.T, o engine.Options)) {
	look := intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Forward })
	watch := func(d intercept.Decision) engine.Options {
		return engine.Options{Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision { return d })}
	}
	for name, o := range map[string]engine.Options{
		"splice":        {},
		"buffer":        {NoSplice: true},
		"handlers":      watch(intercept.Decision{Upstream: look, Downstream: look}),
		"one handler":   watch(intercept.Decision{Downstream: look}),
		"no pipe":       {PipeSize: 4096, Pipes: 1, Loops: 2},
		"one-page pipe": {PipeSize: 4096},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) { f(t, o) })
	}
}
