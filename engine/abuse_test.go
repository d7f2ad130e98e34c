package engine_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// Thousands of clients that hold their pair and do next to nothing with it, beside one that works.
// The many, and the server of all, are in another process.

const (
	abusers = 5000
	// now and then is how often one of them moves a byte.
	nowAndThen = time.Second
)

// abused is a relay in this process in front of abusers, and an interactive connection
// through it to an echo.
type abused struct {
	*rig
	crowd       *child
	server      string
	interactive *net.TCPConn
}

func newAbused(t testing.TB, o engine.Options) *abused {
	t.Helper()
	crowd, err := startChild("abusers")
	if err != nil {
		t.Fatal(err)
	}
	crowd.stopAtEnd(t)
	server, err := crowd.line()
	if err != nil {
		t.Fatal(err)
	}
	o.Listeners = []engine.Listener{{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: netip.MustParseAddrPort(server),
	}}
	a := &abused{rig: newRig(t, o), crowd: crowd, server: server}
	a.interactive = a.dial()
	if _, err := a.interactive.Write([]byte{kindEcho}); err != nil {
		t.Fatal(err)
	}
	return a
}

// dialServer connects to the echo by no relay.
func (a *abused) dialServer() *net.TCPConn {
	a.t.Helper()
	c, err := net.Dial("tcp", a.server)
	if err == nil {
		_, err = c.Write([]byte{kindEcho})
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return a.keep(c)
}

// leave ends it before the test does.
func (a *abused) leave() {
	a.t.Helper()
	a.interactive.Close()
	a.end()
	if err := a.crowd.stop(); err != nil {
		a.t.Error(err)
	}
}

// come lets abusers of that kind come.
func (a *abused) come(kind byte, n int) {
	a.t.Helper()
	opened := a.Stats().Opened
	if err := a.send(kind, n); err != nil {
		a.t.Fatal(err)
	}
	a.until("abusers", func(s engine.Stats) bool { return s.Opened >= opened+uint64(n) })
}

// send has them come, and returns when they are connected to the relay.
func (a *abused) send(kind byte, n int) error {
	s, err := a.crowd.ask(string(kind), n, a.address())
	if err == nil && s != "ok" {
		err = errors.New(s)
	}
	if err != nil {
		return fmt.Errorf("abusers: %w", err)
	}
	return nil
}

// talk exchanges n messages and gives the time that each took, sorted.
func (a *abused) talk(n int) []time.Duration {
	a.t.Helper()
	return a.talkOn(a.interactive, n)
}

func (a *abused) talkOn(c net.Conn, n int) []time.Duration {
	a.t.Helper()
	took := make([]time.Duration, n)
	for i := range took {
		begin := time.Now()
		c.SetDeadline(begin.Add(patience))
		if err := hear(c, fmt.Appendf(nil, "are you still there? %d", i)); err != nil {
			a.t.Fatalf("after %d exchanges: %v", i, err)
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return took
}

// kinds of connections; the client's first byte tells the server.
const (
	kindEcho   = 'e' // the server sends back what comes
	kindSilent = 's' // no byte is sent, not even this one
	kindWriter = 'w' // the client sends a byte now and then
	kindReader = 'r' // the server sends all it can, the client reads a byte now and then
)

// TestSilentClientsAreReaped: 5,000 clients come and send nothing. A client that works
// goes on: IdleTimeout ends the others only.
func TestSilentClientsAreReaped(t *testing.T) {
	a := newAbused(t, engine.Options{IdleTimeout: 5 * time.Second})
	came := make(chan error, 1)
	go func() { came <- a.send(kindSilent, abusers) }()
	for a.Stats().Ended[engine.ReasonIdleTimeout] < abusers { // and while they come, which can take as long
		select {
		case err := <-came:
			if err != nil {
				t.Fatal(err)
			}
		default:
		}
		a.talk(20)
	}
	a.talk(100)
	if s := a.Stats(); s.Active != 1 || s.Ended[engine.ReasonIdleTimeout] != abusers {
		t.Errorf("%d pairs, ended %v", s.Active, s.Ended)
	}
}

// TestSlowLoris: 5,000 clients, of which half write and half read a byte now and then, while the
// server would send them all it has. A client that works goes on.
func TestSlowLoris(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o measuredOptions) {
		enter := engine.PrivateNetwork(t, smallBuffers)
		a := newAbused(t, engine.Options{NoSplice: o.NoSplice, MemoryLimit: 16 << 20, ThreadInit: enter})
		a.talk(100)
		a.come(kindWriter, abusers/2)
		a.come(kindReader, abusers/2)
		// Until memory is gone, or all readers hold what they may: a spliced direction that
		// holds a few bytes in a buffer takes no more.
		a.until("a crowd that fills all it can", func(s engine.Stats) bool { return s.Starved > 0 || s.Pauses >= abusers/2 })
		before := a.Stats()
		a.talk(500)
		for begin := time.Now(); time.Since(begin) < 2*nowAndThen; {
			a.talk(20)
		}
		s := a.Stats()
		t.Logf("%d MiB charged, %d starved, %d waits, %d events", s.Memory>>20, s.Starved-before.Starved, s.Waits-before.Waits, s.Events-before.Events)
		if s.Active != abusers+1 {
			t.Errorf("%d pairs, %v", s.Active, s.Ended)
		}
	})
}

// BenchmarkInteractiveAmongSlowLoris compares the 99th percentile of the round trips of a client
// that works among 5,000 that do not with that of the same client without them, in turns. It does
// the same for a connection without a relay, as the crowd itself takes its share of the machine.
func BenchmarkInteractiveAmongSlowLoris(b *testing.B) {
	const rounds, exchanges = 3, 20_000
	enter := engine.PrivateNetwork(b, smallBuffers)
	p99 := func(a *abused, c *net.TCPConn) float64 {
		c.SetDeadline(time.Now().Add(5 * patience))
		a.talkOn(c, 1000)
		took := a.talkOn(c, exchanges)
		return float64(took[len(took)*99/100].Nanoseconds()) / 1e3
	}
	for b.Loop() {
		var relayed, direct [3][]float64 // idle, crowded, and their ratios
		for range rounds {
			a := newAbused(b, engine.Options{ThreadInit: enter})
			d := a.dialServer()
			r0, d0 := p99(a, a.interactive), p99(a, d)
			a.come(kindWriter, abusers/2)
			a.come(kindReader, abusers/2)
			r1, d1 := p99(a, a.interactive), p99(a, d)
			d.Close()
			a.leave()
			for i, v := range []float64{r0, r1, r1 / r0} {
				relayed[i] = append(relayed[i], v)
			}
			for i, v := range []float64{d0, d1, d1 / d0} {
				direct[i] = append(direct[i], v)
			}
			b.Logf("p99: idle %.0f us, crowded %.0f us; without the relay %.0f and %.0f us", r0, r1, d0, d1)
		}
		for i, unit := range []string{"idle-p99-us", "crowded-p99-us", "ratio"} {
			slices.Sort(relayed[i])
			slices.Sort(direct[i])
			b.ReportMetric(relayed[i][rounds/2], unit)
			b.ReportMetric(direct[i][rounds/2], "direct-"+unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// serveAbusers is the other process.
func serveAbusers(commands *bufio.Scanner) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serveAbuser(c)
		}
	}()
	for commands.Scan() {
		var kind, addr string
		var n int
		fmt.Sscan(commands.Text(), &kind, &n, &addr)
		for i := range n {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				fmt.Println(err)
				return
			}
			go abuse(c, kind[0], i)
		}
		// Not waited for: that they are accepted. Who comes when more wait than may can have been
		// reaped by the relay before.
		fmt.Println("ok")
	}
}

// abuse is a client, until its connection breaks.
func abuse(c net.Conn, kind byte, i int) {
	defer c.Close()
	one := []byte{kind}
	if kind == kindSilent {
		c.Read(one)
		return
	}
	if _, err := c.Write(one); err != nil {
		return
	}
	time.Sleep(time.Duration(i) * 7919 * time.Microsecond % nowAndThen) // not all at once
	for {
		var err error
		if kind == kindWriter {
			_, err = c.Write(one)
		} else {
			_, err = c.Read(one)
		}
		if err != nil {
			return
		}
		time.Sleep(nowAndThen) // so seldom does it read or write
	}
}

// serveAbuser is the server's end.
func serveAbuser(c net.Conn) {
	defer c.Close()
	kind := make([]byte, 1)
	if _, err := c.Read(kind); err != nil {
		return
	}
	switch kind[0] {
	case kindEcho:
		io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	case kindWriter:
		for {
			if _, err := c.Read(kind); err != nil {
				return
			}
		}
	case kindReader:
		page := make([]byte, 4<<10)
		for {
			if _, err := c.Write(page); err != nil {
				return
			}
		}
	}
}
