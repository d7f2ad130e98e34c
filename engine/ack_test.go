package engine

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// ackRelay is a relay in front of server, on a network of their own, that does not run yet.
func ackRelay(t *testing.T) (relay *Engine, server *net.TCPListener) {
	t.Helper()
	enter := PrivateNetwork(t, nil)
	server, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	relay, err = New(Options{
		Loops: 1, ThreadInit: enter,
		Listeners: []Listener{{
			Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: server.Addr().(*net.TCPAddr).AddrPort(),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { relay.Close() })
	return relay, server
}

// start runs the relay until the test ends.
func start(t *testing.T, relay *Engine) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	t.Cleanup(func() {
		relay.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// ends are the two ends of a connection through the relay. say is what the client has said
// before the relay took notice of it, if that is anything.
func ends(t *testing.T, relay *Engine, server *net.TCPListener, say string) (client, far *net.TCPConn) {
	t.Helper()
	client, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(relay.Addrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Write([]byte(say)); err != nil {
		t.Fatal(err)
	}
	start(t, relay)
	if far, err = server.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	hear(t, far, say)
	return client, far
}

func hear(t *testing.T, c *net.TCPConn, want string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

// segments is how many have come on the connection.
func segments(t *testing.T, c *net.TCPConn) (n uint32) {
	t.Helper()
	control(t, c, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		n = info.Segs_in
	})
	return n
}

// late is how many acknowledgements were delayed in this thread's network.
func late(t *testing.T) int64 {
	t.Helper()
	n, err := netlab.TCPCounter("DelayedACKs")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFirstBytesAcknowledgeTheHandshake(t *testing.T) {
	relay, server := ackRelay(t)
	_, far := ends(t, relay, server, "hello")
	if n := segments(t, far); n != 2 {
		t.Errorf("%d segments came, want two: the SYN, and the client's first bytes, which end the handshake", n)
	}
}

// TestServerThatSpeaksFirstNeedNotWait: without a word of the client the handshake is
// acknowledged by itself, and not by a timer.
func TestServerThatSpeaksFirstNeedNotWait(t *testing.T) {
	relay, server := ackRelay(t)
	client, far := ends(t, relay, server, "")
	if _, err := far.Write([]byte("ready")); err != nil {
		t.Fatal(err)
	}
	hear(t, client, "ready")
	if n := late(t); n != 0 {
		t.Errorf("%d acknowledgements were late", n)
	}
}

// TestServerIsAcknowledgedAtOnceAfterFirstBytes: a server with Nagle's algorithm says
// something in two parts. It sends the second when the first is acknowledged, which on a
// connection without a relay is at once.
func TestServerIsAcknowledgedAtOnceAfterFirstBytes(t *testing.T) {
	relay, server := ackRelay(t)
	client, far := ends(t, relay, server, "hello")
	far.SetNoDelay(false)
	for _, part := range []string{"one part", "and another"} {
		if _, err := far.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	hear(t, client, "one part"+"and another")
	if n := late(t); n != 0 {
		t.Errorf("%d acknowledgements were late", n)
	}
}

// TestLateRepliesCarryAcknowledgements: where the loop is the cause that replies are late, messages
// are left for them to acknowledge.
func TestLateRepliesCarryAcknowledgements(t *testing.T) {
	relay, server := ackRelay(t)
	l := relay.loops[0]
	client, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(relay.Addrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var p *pair
	var far *net.TCPConn
	// Run does not run: the loop and its clock are in the test's hands.
	serve := func() {
		t.Helper()
		events, err := l.poller.Wait(10_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			l.dispatch(ev)
		}
		l.serve()
		l.accept()
	}
	l.clock()
	if err := l.poller.Add(l.listeners[0].fd, listenerToken(0)); err != nil {
		t.Fatal(err)
	}
	for p == nil || p.state != stateOpen {
		serve()
		p = l.pairs.at(0)
	}
	if far, err = server.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	defer far.Close()

	say := func(from, to *net.TCPConn, s side, text string) {
		t.Helper()
		if _, err := from.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		for before := p.dir[s].Messages; p.dir[s].Messages == before; {
			serve()
		}
		hear(t, to, text)
	}
	// acknowledged is how many segments come back for messages that nobody replies to.
	acknowledged := func() (n uint32) {
		before := segments(t, client)
		for range 40 {
			say(client, far, upstream, "message")
		}
		return segments(t, client) - before
	}
	for _, c := range []struct {
		overloaded bool
		after      time.Duration
		want       bool
	}{
		{false, 30 * time.Millisecond, false}, // the server's doing
		{true, 30 * time.Millisecond, true},
		{true, 500 * time.Millisecond, false}, // no reply comes in time
	} {
		l.overloaded = c.overloaded
		say(client, far, upstream, "question")
		// The server thinks for longer than the kernel delays an acknowledgement, which is 40 ms.
		time.Sleep(100 * time.Millisecond)
		l.now = l.now.Add(c.after)
		say(far, client, downstream, "reply")
		if got := p.dir[upstream].Is(pump.DelayACK); got != c.want {
			t.Errorf("%+v: messages are left to be acknowledged: %v", c, got)
		}
		if n := acknowledged(); c.want != (n < 40) {
			t.Errorf("%+v: %d acknowledgements for 40 messages", c, n)
		}
	}
}
