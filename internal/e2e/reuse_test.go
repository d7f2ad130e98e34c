package e2e

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// A connection per request, from few ports, where the server closes first, as web
// servers do. The relay's incoming connection has then sent the first FIN of its
// leg, and is in TIME_WAIT when the client, which is not, comes again from the
// same port.
//
// What is counted is SYNs that clients had to send again. Each is a stall of at
// least 200 ms (a second with most kernels), however fast or slow the machine is.

const (
	reuseWorkers  = 32
	reuseRequests = 3000
	reusePorts    = "40000 40063"
)

// copiedRules is the recipe that everybody copies: the socket match comes first, for
// every packet, and so for SYNs too.
const copiedRules = `table inet copied {
	chain prerouting {
		type filter hook prerouting priority mangle;
		meta l4proto tcp socket transparent 1 meta mark set 1 accept
		iifname "left" fib daddr type != local meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:9091 meta mark set 1 accept
		iifname "left" fib daddr type != local meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:9091 meta mark set 1 accept
	}
}`

const copiedRouting = `
	ip rule add fwmark 1 lookup 100; ip route add local default dev lo table 100
	ip -6 rule add fwmark 1 lookup 100; ip -6 route add local default dev lo table 100`

func TestPortReuseDoesNotStall(t *testing.T) {
	for _, v := range families(tproxy.TPROXY) {
		t.Run(v.String(), func(t *testing.T) {
			var direct, ours int64
			t.Run("direct", func(t *testing.T) {
				g := start(t, setup{variant: v, noRules: true})
				direct = g.connectPerRequest(reuseRequests, reuseRequests)
				if s := g.Stats(); s.Accepted != 0 {
					t.Errorf("%d connections were relayed", s.Accepted)
				}
			})
			t.Run("our rules", func(t *testing.T) {
				g := start(t, setup{variant: v})
				ours = g.connectPerRequest(reuseRequests, reuseRequests)
				s := g.until("the end of the pairs", func(s engine.Stats) bool { return s.Active == 0 })
				if s.Opened != reuseRequests {
					t.Errorf("opened %d, want %d", s.Opened, reuseRequests)
				}
				// Where the client comes again before the relay has closed its outgoing
				// connection, the client's port is still in use.
				if s.SpoofLevels[tproxy.LevelFull] == 0 || s.SpoofLevels[tproxy.LevelFull]+s.SpoofLevels[tproxy.LevelIP] != reuseRequests {
					t.Errorf("levels: %v", s.SpoofLevels)
				}
				if n := g.tcpCounter(g.H2, "TCPSynRetrans"); n > direct {
					t.Errorf("the relay sent %d SYNs again", n)
				}
			})
			if ours > direct {
				t.Errorf("%d SYNs sent again through the relay, %d without", ours, direct)
			}
			// That the test can fail:
			t.Run("copied rules", func(t *testing.T) {
				g := start(t, setup{variant: v, noRules: true})
				g.nft(g.H2, copiedRules)
				g.shell(g.H2, copiedRouting)
				enough := direct + 16 // a busy machine sends SYNs again also without a relay
				if n := g.connectPerRequest(reuseRequests, enough); n < enough {
					t.Errorf("%d SYNs sent again: this test proves nothing", n)
				}
				if s := g.Stats(); s.Opened == 0 {
					t.Error("nothing was relayed")
				}
			})
		})
	}
}

// connectPerRequest makes connections from few ports, one for each request, and gives
// the number of SYNs that h1 sent again. It stops when they are enough.
func (g *gateway) connectPerRequest(requests, enough int64) int64 {
	g.t.Helper()
	g.setSysctl(g.H1, "net.ipv4.ip_local_port_range", reusePorts)
	l := g.listen()
	l.serve(func(c *net.TCPConn) {
		request := make([]byte, 64)
		if _, err := io.ReadFull(c, request); err == nil {
			c.Write(request)
		}
	})
	before := g.tcpCounter(g.H1, "TCPSynRetrans")
	again := func() int64 { return g.tcpCounter(g.H1, "TCPSynRetrans") - before }

	var next, done atomic.Int64
	var stop atomic.Bool
	errs := make(chan error, reuseWorkers)
	var wg sync.WaitGroup
	for range reuseWorkers {
		wg.Go(func() {
			for !stop.Load() && next.Add(1) <= requests {
				if err := request(g.H1, l.at.String()); err != nil {
					stop.Store(true)
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	for end := time.Now().Add(patience); ; {
		select {
		case <-finished:
		case <-time.After(20 * time.Millisecond):
			if again() < enough && time.Now().Before(end) {
				continue
			}
			stop.Store(true)
			<-finished
		}
		break
	}
	close(errs)
	for err := range errs {
		g.t.Errorf("after %d requests: %v", done.Load(), err)
	}
	n := again()
	g.t.Logf("%d requests, %d SYNs sent again, listen queue overflows: %d on h2, %d on h3", done.Load(), n,
		g.tcpCounter(g.H2, "ListenOverflows"), g.tcpCounter(g.H3, "ListenOverflows"))
	return n
}

// request makes one connection, asks, and reads the answer to its end.
func request(from *netlab.Host, to string) error {
	ctx, cancel := contextWithPatience()
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	asked := make([]byte, 64)
	copy(asked, c.LocalAddr().String())
	if _, err := c.Write(asked); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != string(asked) {
		err = fmt.Errorf("asked %q, answered %q", asked, answer)
	}
	return err
}
