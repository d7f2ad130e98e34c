package e2e

import (
	"fmt"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// reconnects is how often a client comes again from the port that it has just used.
const reconnects = 10

// TestReconnectWithinTimeWait: the connection before is in TIME_WAIT on the relay.
// On the incoming leg (where the server closed first) TPROXY takes it over. On the
// outgoing leg (where the client did) the kernel lets a bound socket take it over if
// the server used timestamps. Otherwise the port is taken, and the relay uses another
// port of the client's address. It never hangs, and never fails.
func TestReconnectWithinTimeWait(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		for _, timestamps := range []bool{true, false} {
			name := fmt.Sprintf("%s first, timestamps %v", first, timestamps)
			t.Run(name, func(t *testing.T) {
				each(t, append(variants(tproxy.TPROXY), families(tproxy.Redirect)...), func(t *testing.T, g *gateway) {
					spoofed := g.reconnect(first == "client", timestamps)
					s := g.Stats()
					t.Logf("levels %v; %d came from the client's own port; SYNs sent again: %d by h1, %d by h2",
						s.SpoofLevels, spoofed, g.tcpCounter(g.H1, "TCPSynRetrans"), g.tcpCounter(g.H2, "TCPSynRetrans"))
					if s.Opened != reconnects {
						t.Errorf("opened %d", s.Opened)
					}
					if g.mode != tproxy.TPROXY {
						return
					}
					full := uint64(reconnects)
					if first == "client" && !timestamps {
						full = 1
					}
					if s.SpoofLevels[tproxy.LevelFull] != full || s.SpoofLevels[tproxy.LevelIP] != reconnects-full || uint64(spoofed) != full {
						t.Errorf("levels %v, and %d came from the client's own port; want %d", s.SpoofLevels, spoofed, full)
					}
				})
			})
		}
	}
}

// reconnect counts how often the server saw the client's own port.
func (g *gateway) reconnect(clientFirst, timestamps bool) (spoofed int) {
	g.t.Helper()
	// h1 keeps no TIME_WAIT: otherwise it could not use the port again so soon, as clients behind
	// an address translator and load generators do.
	if err := g.H1.SetSysctl("net.ipv4.tcp_max_tw_buckets", "0"); err != nil {
		g.t.Skip(err)
	}
	if !timestamps {
		if err := g.H3.SetSysctl("net.ipv4.tcp_timestamps", "0"); err != nil {
			g.t.Skip(err)
		}
	}
	l := g.listen()
	for i := range reconnects {
		client := g.dialFrom(clientPort, l.at)
		server := l.accept()
		exchange(g.t, client, server)
		if remote(server) == local(client) {
			spoofed++
		}
		first, second := server, client
		if clientFirst {
			first, second = client, server
		}
		if err := first.CloseWrite(); err != nil {
			g.t.Fatal(err)
		}
		expect(g.t, "second", second, 0, 0)
		second.Close()
		expect(g.t, "first", first, 0, 0)
		first.Close()
		if p := g.endedPairs(i + 1)[i]; p.Reason != engine.ReasonEOF {
			g.t.Fatalf("connection %d: %+v", i, p)
		}
	}
	return spoofed
}
