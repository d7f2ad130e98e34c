package e2e

import (
	"io"
	"net"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// TestThrottleDropsNothing: in front of a slow link the relay's receive buffer gets
// smaller while the client sends at full speed. What the client was promised room for
// arrives: the relay's host drops none of it, and nothing has to be sent again.
func TestThrottleDropsNothing(t *testing.T) {
	lab := netlab.Config{
		Access:     netlab.Link{Rate: 20e6, Queue: 4 << 20}, // it drops nothing either
		Bottleneck: netlab.Link{Rate: 6e6},
	}
	eachWith(t, families(tproxy.TPROXY), setup{lab: lab}, func(t *testing.T, g *gateway) {
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
