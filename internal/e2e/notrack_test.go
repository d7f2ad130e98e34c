package e2e

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// TestNotrackOneWay is haproxy issue 3192: packets from clients are exempt from
// connection tracking, the relay's answers are not. The kernel then believes that the
// server had called the client, and SO_ORIGINAL_DST of the accepted socket names
// the client. In TPROXY mode nobody asks it.
func TestNotrackOneWay(t *testing.T) {
	// With the client's port too, both legs look the same to the kernel, and the right
	// flow of one hides the wrong one of the other.
	s := setup{engine: engine.Options{Spoof: tproxy.SpoofIP}}
	eachWith(t, families(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
		// The counter is there so that connections are tracked at all.
		g.nft(g.H2, `table inet oneway {
			chain raw {
				type filter hook prerouting priority raw;
				iifname "left" notrack
			}
			chain tracked {
				type filter hook output priority filter;
				ct state new,established counter
			}
		}`)
		l := g.listen()
		client, server := g.pair(l)
		exchange(t, client, server)

		// The trap is set: the flow is known the wrong way round.
		trap := false
		err := g.H2.Do(func() error {
			family := netlink.InetFamily(unix.AF_INET)
			if g.v6 {
				family = unix.AF_INET6
			}
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			for _, f := range flows {
				source, _ := netip.AddrFromSlice(f.Forward.SrcIP)
				target, _ := netip.AddrFromSlice(f.Forward.DstIP)
				if netip.AddrPortFrom(source.Unmap(), f.Forward.SrcPort) == l.at && netip.AddrPortFrom(target.Unmap(), f.Forward.DstPort) == local(client) {
					trap = true
				}
			}
			return err
		})
		if err != nil {
			t.Logf("cannot see what is tracked: %v", err)
		} else if !trap {
			t.Error("the flow is not tracked the wrong way round: this test proves nothing")
		}

		client.Close()
		server.Close()
		if p := g.endedPairs(1)[0]; p.Destination != l.at || p.Client != local(client) {
			t.Errorf("%+v, want destination %v", p, l.at)
		}
		if remote(server).Addr() != g.client() {
			t.Errorf("%v came as %v", local(client), remote(server))
		}
	})
}
