package engine_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

func TestHalfCloseDeliversTail(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		for _, first := range []string{"client", "server"} {
			t.Run(first+" first", func(t *testing.T) {
				r := newRig(t, o)
				a, b := r.pair()
				if first == "server" {
					a, b = b, a
				}
				request, reply := noise(1<<20), noise(5<<20+3)
				sent := sendAll(a, request, true)
				expect(t, "the other", b, request)
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				half := func() bool { i := r.only(); return i.Upstream.FinSent != i.Downstream.FinSent }
				if !half() {
					t.Errorf("not half-closed: %+v", r.only())
				}
				sent = sendAll(b, reply, true)
				expect(t, first, a, reply)
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				r.ended(engine.ReasonEOF, 1)
			})
		}
	})
}

// TestFINRightAfterBytes: everything, FIN included, is there before the outgoing flow
// stands.
func TestFINRightAfterBytes(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		for _, n := range []int{0, 1, 100_000} {
			r := newRig(t, o)
			client := r.dial()
			<-sendAll(client, noise(n), true)
			server := r.accept()
			expect(t, "server", server, noise(n))
			server.Close()
			expect(t, "client", client, nil)
			r.ended(engine.ReasonEOF, 1)
		}
	})
}

func TestRefusedUpstreamResetsTheClient(t *testing.T) {
	r := newRig(t, engine.Options{})
	r.server.Close()
	r.dialReset()
	r.ended(engine.ReasonDialError, 1)
	if s := r.Stats(); s.DialErrors["ECONNREFUSED"] != 1 || s.Opened != 0 {
		t.Errorf("%+v", s)
	}
}

func TestResetIsPassedOn(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		for _, who := range []string{"client", "server"} {
			t.Run(who, func(t *testing.T) {
				r := newRig(t, o)
				a, b := r.pair()
				if who == "server" {
					a, b = b, a
				}
				exchange(t, a, b, noise(1000))
				rst(a)
				expectReset(t, "the other", b)
				r.ended(engine.ReasonReset, 1)
			})
		}
	})
}

// TestResetTravelsBehindUnsentBytes: what the relay's host had acknowledged before the RST
// came, in a receive buffer, pending, or in a send buffer, reaches a receiver
// that is slow to read (envoyproxy/envoy issue 45267).
func TestResetTravelsBehindUnsentBytes(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		for _, who := range []string{"client", "server"} {
			t.Run(who, func(t *testing.T) {
				r := newRig(t, o)
				from, to := r.pair()
				if who == "server" {
					from, to = to, from
				}
				exchange(t, from, to, []byte("go"))
				to.SetReadBuffer(64 << 10)
				data := noise(512 << 10)
				if err := <-sendAll(from, data, false); err != nil {
					t.Fatal(err)
				}
				// The sender's own kernel drops what was not acknowledged when the RST goes.
				untilAcknowledged(t, from)
				rst(from)
				if got := expectReset(t, "receiver", to); sum(got) != sum(data) {
					t.Errorf("%d of %d bytes came before the reset", len(got), len(data))
				}
				r.ended(engine.ReasonReset, 1)
			})
		}
	})
}

// TestResetBehindAFINIsNoCut: the server has sent its reply and a FIN, and resets; all of that
// comes while the loop is busy, so that the next it hears is that a write fails. The client gets
// the reply and the FIN.
func TestResetBehindAFINIsNoCut(t *testing.T) {
	for _, downstream := range []bool{false, true} {
		t.Run(fmt.Sprintf("handler downstream %v", downstream), func(t *testing.T) {
			busy, release := make(chan struct{}), make(chan struct{})
			block := intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
				if !c.End {
					busy <- struct{}{}
					<-release
				}
				return intercept.Forward
			})
			decision := intercept.Decision{Upstream: block}
			if downstream {
				decision.Downstream = intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Forward })
			}
			r := newRig(t, engine.Options{Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision { return decision })})
			client, server := r.pair()
			<-sendAll(client, []byte("request"), false)
			<-busy
			reply := noise(1000)
			<-sendAll(server, reply, true)
			untilAcknowledged(t, server)
			rst(server)
			close(release)
			expect(t, "client", client, reply)
			r.ended(engine.ReasonReset, 1)
		})
	}
}

// TestResetDoesNotWaitForEver: a receiver that has stopped gets its RST in the end.
func TestResetDoesNotWaitForEver(t *testing.T) {
	r := newRig(t, engine.Options{HalfCloseTimeout: time.Second})
	client, server := r.pair()
	exchange(t, client, server, []byte("go"))
	sent := sendAll(client, noise(64<<20), false)
	r.until("full", func(s engine.Stats) bool { return s.Pauses > 0 })
	rst(client)
	<-sent
	r.ended(engine.ReasonReset, 1)
	expectReset(t, "server", server)
}

func untilAcknowledged(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		left := 0
		raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are not acknowledged", left)
		}
	}
}

// TestWriteToResetPeerDeliversItsLastWords: the server answers and closes without
// reading the request to its end, so that its kernel sends an RST for the rest.
func TestWriteToResetPeerDeliversItsLastWords(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		sent := sendAll(client, noise(8<<20), false)
		if _, err := io.ReadFull(server, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		<-sendAll(server, []byte("enough"), false)
		server.Close()
		got, read := io.ReadAll(client)
		if string(got) != "enough" {
			t.Errorf("client got %q", got)
		}
		// A socket reports its reset once: to the write that waits, or to the read.
		if write := <-sent; !errors.Is(read, unix.ECONNRESET) && !errors.Is(write, unix.ECONNRESET) {
			t.Errorf("no reset: read says %v, write %v", read, write)
		}
		r.ended(engine.ReasonReset, 1)
	})
}

func TestClientGoneWhileConnecting(t *testing.T) {
	r, full := newBlackHole(t, engine.Options{})
	client := r.dial()
	r.until("accepted", func(s engine.Stats) bool { return s.Active == 1 })
	rst(client)
	r.ended(engine.ReasonReset, 1)
	full()
}

func TestConnectTimeoutResetsTheClient(t *testing.T) {
	r, full := newBlackHole(t, engine.Options{ConnectTimeout: 300 * time.Millisecond})
	client := r.dial()
	expectReset(t, "client", client)
	r.ended(engine.ReasonConnectTimeout, 1)
	full()
}

// newBlackHole is a relay whose upstream does not answer: a listener whose backlog is
// full drops SYNs.
func newBlackHole(t *testing.T, o engine.Options) (*rig, func()) {
	t.Helper()
	fd, err := tproxy.Listen(netip.MustParseAddrPort("127.0.0.1:0"), tproxy.ListenOptions{Backlog: 1})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := sock.LocalAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	var filler []net.Conn
	for range 16 {
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if err != nil {
			break
		}
		filler = append(filler, c)
	}
	o.Listeners = []engine.Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: addr}}
	return newRig(t, o), func() {
		unix.Close(fd)
		for _, c := range filler {
			c.Close()
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	const idle = 2 * time.Second // far more than a busy machine adds to a pause below
	r := newRig(t, engine.Options{IdleTimeout: idle})
	client, server := r.pair()
	for start := time.Now(); time.Since(start) < idle+idle/4; time.Sleep(idle / 10) { // activity puts it off
		exchange(t, client, server, noise(10))
	}
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	r.ended(engine.ReasonIdleTimeout, 1)
}

func TestHalfCloseTimeout(t *testing.T) {
	r := newRig(t, engine.Options{HalfCloseTimeout: 300 * time.Millisecond})
	client, server := r.pair()
	<-sendAll(client, noise(10), true)
	expect(t, "server", server, noise(10))
	expectReset(t, "client", client)
	r.ended(engine.ReasonHalfCloseTimeout, 1)
}

func TestDrain(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	exchange(t, client, server, noise(100))
	r.stop()
	r.until("listener closed", func(engine.Stats) bool {
		c, err := net.Dial("tcp", r.address())
		if err == nil {
			rst(c.(*net.TCPConn)) // it may have been in the backlog, and be served
		}
		return err != nil
	})
	data := noise(3 << 20)
	sent := sendAll(client, data, true)
	expect(t, "server", server, data)
	<-sent
	server.Close()
	expect(t, "client", client, nil)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if n := r.Stats().Ended[engine.ReasonEOF]; n == 0 {
		t.Errorf("%+v", r.Stats())
	}
}

// TestHalfCloseAfterIdleTime: the timeout begins with the FIN, not with the last byte before it.
func TestHalfCloseAfterIdleTime(t *testing.T) {
	const timeout = 3 * time.Second
	r := newRig(t, engine.Options{HalfCloseTimeout: timeout})
	client, server := r.pair()
	exchange(t, client, server, noise(10))
	time.Sleep(timeout + timeout/10) // both ends are silent for longer than the timeout
	client.CloseWrite()
	expect(t, "server", server, nil)
	time.Sleep(timeout / 6) // the server lets several ticks pass
	sent := sendAll(server, noise(100), true)
	expect(t, "client", client, noise(100))
	<-sent
	r.ended(engine.ReasonEOF, 1)
}

// newcomers dial once more for every connection that is accepted, up to most, having
// ended the relay on the first.
type newcomers struct {
	rigs  chan *rig
	r     *rig
	most  int
	conns []net.Conn
}

func (n *newcomers) Open(intercept.Pair) intercept.Decision {
	if n.r == nil {
		n.r = <-n.rigs
		n.r.stop()
	}
	if len(n.conns) < n.most {
		if c, err := net.Dial("tcp", n.r.address()); err == nil {
			n.conns = append(n.conns, c)
		}
	}
	return intercept.Decision{Refuse: true}
}

// TestDrainUnderFloodOfNewcomers: clients that keep dialing do not keep the listener open.
func TestDrainUnderFloodOfNewcomers(t *testing.T) {
	n := &newcomers{rigs: make(chan *rig, 1), most: 1000}
	r := newRig(t, engine.Options{Loops: 1, Interceptor: n})
	n.rigs <- r
	if c, err := net.Dial("tcp", r.address()); err == nil { // otherwise it was reset already
		c.Close()
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	for _, c := range n.conns {
		c.Close()
	}
	if c := len(n.conns); c == 0 || c == n.most {
		t.Errorf("%d newcomers were accepted", c)
	}
}

func TestDrainDeadlineResets(t *testing.T) {
	r := newRig(t, engine.Options{DrainTimeout: 200 * time.Millisecond})
	client, server := r.pair()
	exchange(t, client, server, noise(100))
	r.stop()
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if n := r.Stats().Ended[engine.ReasonDrained]; n != 1 {
		t.Errorf("%d drained", n)
	}
}

func TestCloseEndsAtOnce(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	exchange(t, client, server, noise(100))
	r.Close()
	expectReset(t, "client", client)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestHugeTimeoutsNeverFire: a time-out of more ticks than the wheel tells apart was over at once.
func TestHugeTimeoutsNeverFire(t *testing.T) {
	for _, huge := range []time.Duration{math.MaxInt64, (1 << 31) * 100 * time.Millisecond} {
		r := newRig(t, engine.Options{Loops: 1, ConnectTimeout: huge, IdleTimeout: huge, HalfCloseTimeout: huge, DrainTimeout: huge})
		client, server := r.pair()
		exchange(t, client, server, noise(10))
		client.CloseWrite()
		expect(t, "server", server, nil)
		r.stop()
		other := time.After(500 * time.Millisecond) // some ticks
		<-other
		before := r.Stats()
		exchange(t, server, client, noise(10))
		if before.Active != 1 || before.Waits > 100 {
			t.Errorf("%v: %d pairs, %d waits: %v", huge, before.Active, before.Waits, before.Ended)
		}
		server.Close()
		r.ended(engine.ReasonEOF, 1)
	}
}
