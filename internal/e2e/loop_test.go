package e2e

import (
	"net/netip"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// TestConnectionToTheListenerItself is Xray-core issue 2755: `nc relay 12345`, whose
// original destination is the relay, which connects to itself, and so on at full
// speed. It is refused, once.
func TestConnectionToTheListenerItself(t *testing.T) {
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, setup{wildcard: true}, func(t *testing.T, g *gateway) {
		n := 0
		refused := func(from *netlab.Host, address netip.Addr) {
			t.Helper()
			to := netip.AddrPortFrom(address, relayPort)
			g.dialFromIsReset(from, to)
			n++
			p := g.endedPairs(n)[n-1]
			// Untracked connections have no original destination in REDIRECT mode.
			if p.Reason != engine.ReasonLoop && !(g.mode == tproxy.Redirect && p.Reason == engine.ReasonNoDestination) {
				t.Errorf("%v: %+v", to, p)
			}
		}
		// h2's address on either side, from the LAN and from h2 itself.
		for _, name := range []string{netlab.Left, netlab.Right} {
			own := g.H2.Iface(name)
			address := own.Addr4
			if g.v6 {
				address = own.Addr6
			}
			refused(g.H1, address)
			refused(g.H2, address)
		}
		refused(g.H2, g.loopback())
		if s := g.Stats(); s.Accepted != uint64(n) || s.Opened != 0 || s.Waits > 100 {
			t.Errorf("%d connections: accepted %d, opened %d, %d waits", n, s.Accepted, s.Opened, s.Waits)
		}
	})
}

// TestOtherServersOfTheRelayHost: what is meant for h2 itself, on another port, is
// neither diverted nor taken for the relay's.
func TestOtherServersOfTheRelayHost(t *testing.T) {
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, setup{wildcard: true}, func(t *testing.T, g *gateway) {
		address := g.H2.Addr4
		if g.v6 {
			address = g.H2.Addr6
		}
		l := g.listenOn(g.H2, netip.AddrPortFrom(address, 0))
		client := g.dial(l.at)
		server := l.accept()
		exchange(t, client, server)
		if remote(server) != local(client) {
			t.Errorf("%v came as %v", local(client), remote(server))
		}
		if s := g.Stats(); s.Accepted != 0 {
			t.Errorf("accepted %d", s.Accepted)
		}
	})
}
