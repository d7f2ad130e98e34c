package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// A relay that corks the tail of a message (SPLICE_F_MORE, golang/go issue 10948) or
// waits for an acknowledgement that is delayed costs 40 ms or 200 ms per round
// trip. Such a step is far above what a busy machine adds, and it comes again and
// again; what comes rarely is the scheduler, so it is the number of steps that is
// compared with the direct path, measured in turns with the relayed one, and for as
// long: how often a machine stops a process goes by time, not by round trips.

const (
	step = 35 * time.Millisecond
	// rareSteps is how many of all round trips may show a step that the direct path
	// does not: a machine that does other things too stops a process for that long now
	// and then, and more of them work for the relayed one.
	rareSteps = 30
	// blocks are how often direct and relayed path take turns, and blockLimit is how long a
	// turn may take: on a busy machine there are fewer round trips.
	blocks     = 10
	blockLimit = 3 * time.Second
)

// histogram counts round trips by powers of two of microseconds.
type histogram struct {
	buckets [32]int
	steps   int
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for us := d.Microseconds(); us > 1 && i < len(h.buckets)-1; us >>= 1 {
		i++
	}
	h.buckets[i]++
	if d >= step {
		h.steps++
	}
}

func (h *histogram) String() string {
	var b strings.Builder
	for i, n := range h.buckets {
		if n > 0 {
			fmt.Fprintf(&b, " %v: %d,", time.Duration(1<<i)*time.Microsecond, n)
		}
	}
	return fmt.Sprintf("%s steps: %d", b.String(), h.steps)
}

// pingPong sends each message in turn, n times but not for longer than blockLimit, and then
// for as long as least, and waits for its echo. It returns how often that was. It gives up
// when there are more steps than could be chance.
func pingPong(t *testing.T, c *net.TCPConn, h *histogram, n int, least time.Duration, messages ...[]byte) (times int) {
	t.Helper()
	answer := make([]byte, 1<<20)
	start := time.Now()
	for took := time.Duration(0); times < n && took < blockLimit || took < least; took = time.Since(start) {
		for _, m := range messages {
			begin := time.Now()
			if _, err := c.Write(m); err != nil {
				t.Fatalf("round trip %d: %v", times, err)
			}
			if _, err := io.ReadFull(c, answer[:len(m)]); err != nil {
				t.Fatalf("round trip %d: %v", times, err)
			}
			h.add(time.Since(begin))
		}
		times++
		if h.steps > 20*rareSteps {
			t.Fatalf("every few round trips take a step: %v", h)
		}
	}
	return times
}

// TestPingPong sends one byte 50,000 times if there is time, on the way that few bytes take: the
// loop's scratch buffer.
func TestPingPong(t *testing.T) {
	testPingPong(t, paths(tproxy.TPROXY)[0], 50_000, []byte{1})
}

func TestPingPongThroughBuffers(t *testing.T) {
	testPingPong(t, paths(tproxy.TPROXY)[1], 20_000, []byte{1})
}

// TestPingPongThroughPipes sends one byte right after many, which made the direction
// take to pipes: this byte is spliced, and so are the tails of the many.
func TestPingPongThroughPipes(t *testing.T) {
	testPingPong(t, paths(tproxy.TPROXY)[0], 3000, make([]byte, 48<<10+1), []byte{1})
}

func testPingPong(t *testing.T, v variant, rounds int, messages ...[]byte) {
	const relayed, direct = 8001, 8002
	s := setup{rules: func(c *rules.Config) { c.Ports = rules.Ports{{First: relayed, Last: relayed}} }}
	if testing.Short() {
		rounds /= 10
	}
	eachWith(t, []variant{v}, s, func(t *testing.T, g *gateway) {
		var conns [2]*net.TCPConn
		var histograms [2]histogram
		for i, port := range []uint16{relayed, direct} {
			l := g.listenOn(g.H3, g.at(port))
			l.serve(echo)
			conns[i] = g.dial(l.at)
			pingPong(t, conns[i], &histogram{}, 1, 0, messages...) // the pair stands
		}
		before := g.Stats()
		var times [2]int
		for range blocks {
			var least time.Duration
			for i, c := range conns {
				start := time.Now()
				c.SetDeadline(start.Add(patience))
				times[i] += pingPong(t, c, &histograms[i], rounds/blocks, least, messages...)
				least = time.Since(start)
			}
		}
		s := g.Stats()
		splices := s.Splices - before.Splices
		t.Logf("relayed: %v", &histograms[0])
		t.Logf("direct:  %v", &histograms[1])
		t.Logf("%d relayed round trips, %d splice calls, %d waits", times[0]*len(messages), splices, s.Waits-before.Waits)
		if relayed, direct := histograms[0].steps, histograms[1].steps; relayed > direct+rareSteps {
			t.Errorf("%d round trips of at least %v, and %d without the relay", relayed, step, direct)
		}
		if many := len(messages) > 1; many && splices < uint64(times[0]) || g.noSplice && splices > 0 {
			t.Errorf("%d splice calls", splices)
		}
		if s.Accepted != 1 {
			t.Errorf("%d connections were relayed, want 1", s.Accepted)
		}
		conns[0].Close()
	})
}
