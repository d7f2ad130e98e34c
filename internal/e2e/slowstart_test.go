package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// TestSlowStartOnALongPathIsLeftAlone: an upload over a long path behind the relay is over
// before slow start has found out what the path can carry. Bytes wait in the relay meanwhile,
// but there is no queue that the throttle would have to shorten.
//
// A machine that is too busy to pass packets on in time makes round trips grow. So one of many
// uploads must be left alone.
func TestSlowStartOnALongPathIsLeftAlone(t *testing.T) {
	const size, tries = 1_000_000, 30
	g := start(t, setup{variant: variant{mode: tproxy.TPROXY}, lab: netlab.Config{Bottleneck: netlab.Link{Delay: 50 * time.Millisecond}}})
	for _, h := range []*netlab.Host{g.H1, g.H2, g.H3} {
		if err := h.SetSysctl("net.ipv4.tcp_congestion_control", "cubic"); err != nil {
			t.Fatal(err)
		}
	}
	l := g.listen()
	arrived := make(chan int64, tries)
	l.serve(func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		arrived <- n
	})
	for range tries {
		before := g.Stats().Throttles
		client := g.dial(l.at)
		if _, err := client.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		client.CloseWrite()
		if n := <-arrived; n != size {
			t.Fatalf("%d of %d bytes", n, size)
		}
		if g.Stats().Throttles == before {
			client.Close()
			// While there are rules: without them no acknowledgement finds the relay's sockets.
			g.until("the end", func(s engine.Stats) bool { return s.Active == 0 })
			return
		}
	}
	t.Errorf("each of %d uploads was throttled: %+v", tries, g.Stats())
}
