package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// TestThrottleDropsNothing: in front of a slow link the relay's receive buffer gets
// smaller while the client sends at full speed. What the client was promised room for
// arrives: the relay's host drops none of it, and nothing has to be sent again. Nor when the
// relay now and then gets no CPU time for a while.
func TestThrottleDropsNothing(t *testing.T) {
	t.Run("runs", func(t *testing.T) { throttleDropsNothing(t, nil) })
	t.Run("stops", func(t *testing.T) {
		throttleDropsNothing(t, intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
			goOn := time.Now()
			return intercept.Decision{Upstream: intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict {
				if time.Now().After(goOn) {
					time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // the relay stands still
					goOn = time.Now().Add(time.Duration(rand.IntN(150)) * time.Millisecond)
				}
				return intercept.Forward
			})}
		}))
	})
}

func throttleDropsNothing(t *testing.T, interceptor intercept.Interceptor) {
	lab := netlab.Config{
		Access:     netlab.Link{Rate: 20e6, Queue: 4 << 20}, // it drops nothing either
		Bottleneck: netlab.Link{Rate: 6e6},
	}
	eachWith(t, families(tproxy.TPROXY), setup{lab: lab, engine: engine.Options{Interceptor: interceptor}}, func(t *testing.T, g *gateway) {
		l := g.listen()
		arrived := make(chan int64, 1)
		l.serve(func(c *net.TCPConn) {
			n, _ := io.Copy(io.Discard, c)
			arrived <- n
		})
		drops := func() (n int64) {
			for _, name := range []string{"TCPRcvQDrop", "RcvPruned", "OfoPruned"} {
				n += g.tcpCounter(g.H2, name)
			}
			return n
		}
		before := drops()
		client := g.dial(l.at)
		data := make([]byte, 2<<20)
		if _, err := client.Write(data); err != nil {
			t.Fatal(err)
		}
		client.CloseWrite()
		if n := <-arrived; n != int64(len(data)) {
			t.Errorf("%d of %d bytes", n, len(data))
		}
		if s := g.Stats(); s.Throttles == 0 {
			t.Errorf("never throttled: %+v", s)
		}
		if n := drops() - before; n != 0 {
			t.Errorf("%d segments were dropped for want of a receive buffer", n)
		}
	})
}
