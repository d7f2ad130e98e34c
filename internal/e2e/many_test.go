package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/tproxy"
)

// TestMiceBetweenElephants is gpjt/rsp issue 2, where one stream had 31 Gbit/s and the other
// none: two streams at full speed and fifty of small messages share a loop. Everybody
// gets on.
func TestMiceBetweenElephants(t *testing.T) {
	eachWith(t, paths(tproxy.TPROXY), setup{engine: engine.Options{Loops: 1}}, func(t *testing.T, g *gateway) {
		var moved [2]atomic.Int64
		sink := g.listen()
		var elephants []*net.TCPConn
		for i := range moved {
			client, server := g.pair(sink)
			elephants = append(elephants, client, server)
			go func() { // ends when the connection is closed
				buf := make([]byte, 256<<10)
				for {
					n, err := server.Read(buf)
					moved[i].Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
			go func() {
				buf := make([]byte, 256<<10)
				for {
					if _, err := client.Write(buf); err != nil {
						return
					}
				}
			}()
		}
		burrow := g.listen()
		burrow.serve(echo)
		mice := make([]*net.TCPConn, 50)
		for i := range mice {
			mice[i] = g.dial(burrow.at)
		}
		const rounds, messages = 5, 4
		for round := range rounds {
			before := [2]int64{moved[0].Load(), moved[1].Load()}
			var h histogram
			for message := range messages {
				squeak := func(i int) []byte { return fmt.Appendf(nil, "squeak %d of mouse %d", message, i) }
				begin := time.Now()
				for i, mouse := range mice {
					if _, err := mouse.Write(squeak(i)); err != nil {
						t.Fatal(err)
					}
				}
				for i, mouse := range mice {
					got := make([]byte, len(squeak(i)))
					if _, err := io.ReadFull(mouse, got); err != nil || !bytes.Equal(got, squeak(i)) {
						t.Fatalf("mouse %d, round %d: %q, %v", i, round, got, err)
					}
					h.add(time.Since(begin))
				}
			}
			for i := range moved {
				// While the mice are away the elephants move, if only a little.
				what := fmt.Sprintf("elephant %d in round %d", i, round)
				g.until(what, func(engine.Stats) bool { return moved[i].Load() >= before[i]+mebibyte })
			}
			t.Logf("mice:%v; elephants: %d and %d MiB", &h, (moved[0].Load()-before[0])>>20, (moved[1].Load()-before[1])>>20)
		}
		for _, mouse := range mice {
			mouse.Close()
		}
		for _, c := range elephants {
			rst(c)
		}
	})
}

// TestMoreActivePairsThanEventsPerWait: a loop takes up to 1,024 events per wait. All of
// 1,500 pairs that become active at once are served, round by round. So that
// it is at once, the loop is held up in the interceptor while they write.
func TestMoreActivePairsThanEventsPerWait(t *testing.T) {
	const pairs, rounds, hold = 1500, 5, 9 // hold: the port that holds the loop up
	entered, release := make(chan struct{}), make(chan struct{})
	s := setup{engine: engine.Options{
		Loops: 1,
		Interceptor: intercept.InterceptorFunc(func(p intercept.Pair) intercept.Decision {
			if p.Destination.Port() != hold {
				return intercept.Decision{}
			}
			entered <- struct{}{}
			<-release
			return intercept.Decision{Refuse: true}
		}),
	}}
	eachWith(t, paths(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
		l := g.listen()
		l.serve(echo)
		conns := make([]*net.TCPConn, pairs)
		for i := range conns {
			conns[i] = g.dial(l.at)
		}
		g.until("all pairs", func(s engine.Stats) bool { return s.Opened == pairs && s.Active == pairs })

		message := func(pair, round int) []byte { return fmt.Appendf(nil, "pair %4d, round %d", pair, round) }
		for round := range rounds {
			before := g.Stats()
			held := g.dial(g.at(hold))
			<-entered
			for i, c := range conns {
				if _, err := c.Write(message(i, round)); err != nil {
					t.Fatal(err)
				}
			}
			release <- struct{}{}
			for i, c := range conns {
				want := message(i, round)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("pair %d, round %d: %q, %v", i, round, got, err)
				}
			}
			expectReset(t, "the refused one", held)
			s := g.until("rest", func(s engine.Stats) bool { return s.Pending == 0 && s.PipesInUse == 0 && s.Buffers == 0 })
			t.Logf("round %d: %d events in %d waits", round, s.Events-before.Events, s.Waits-before.Waits)
		}
		for _, c := range conns {
			c.Close()
		}
		g.until("the end", func(s engine.Stats) bool { return s.Ended[engine.ReasonEOF] == pairs })
	})
}
