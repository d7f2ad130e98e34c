package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

func TestRefusedUpstreamResetsTheClient(t *testing.T) {
	each(t, modesAndPaths(), func(t *testing.T, g *gateway) {
		l := g.listen()
		l.Close() // nobody listens there any more
		for range 3 {
			g.dialIsReset(l.at)
		}
		for _, p := range g.endedPairs(3) {
			if p.Reason != engine.ReasonDialError || p.Established || p.Destination != l.at || p.Err == "" {
				t.Errorf("%+v", p)
			}
		}
		if s := g.Stats(); s.DialErrors["ECONNREFUSED"] != 3 || s.Opened != 0 {
			t.Errorf("dial errors %v, opened %d", s.DialErrors, s.Opened)
		}
	})
}

func TestUnreachableHostResetsTheClient(t *testing.T) {
	each(t, append(families(tproxy.TPROXY), families(tproxy.Redirect)...), func(t *testing.T, g *gateway) {
		// A net that is cut off, by a route on h2.
		network, target := "10.77.9.0/24", "10.77.9.1"
		if g.v6 {
			network, target = "fd77:9::/64", "fd77:9::1"
		}
		_, dst, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		err = g.H2.Do(func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE})
		})
		if err != nil {
			t.Fatal(err)
		}
		to := netip.AddrPortFrom(netip.MustParseAddr(target), 80)
		g.dialIsReset(to)
		p := g.endedPairs(1)[0]
		if p.Reason != engine.ReasonDialError || p.Destination != to {
			t.Errorf("%+v", p)
		}
		if s := g.Stats(); s.DialErrors["EHOSTUNREACH"]+s.DialErrors["ENETUNREACH"] != 1 {
			t.Errorf("dial errors %v", s.DialErrors)
		}
	})
}

func TestAbsentHostResetsTheClient(t *testing.T) {
	s := setup{engine: engine.Options{ConnectTimeout: patience}} // the kernel gives up before that
	eachWith(t, families(tproxy.Redirect), s, func(t *testing.T, g *gateway) {
		// An address behind h2's right interface that nobody has. h2 asks for it once
		// instead of three times, a second each.
		family, target := "ipv4", "10.77.2.99"
		if g.v6 {
			family, target = "ipv6", "fd77:2::99"
		}
		if err := g.H2.SetSysctl("net."+family+".neigh."+netlab.Right+".mcast_solicit", "1"); err != nil {
			t.Fatal(err)
		}
		g.dialIsReset(netip.AddrPortFrom(netip.MustParseAddr(target), 80))
		if p := g.endedPairs(1)[0]; p.Reason != engine.ReasonDialError {
			t.Errorf("%+v", p)
		}
		if s := g.Stats(); s.DialErrors["EHOSTUNREACH"] != 1 {
			t.Errorf("dial errors %v", s.DialErrors)
		}
	})
}

func TestSilentUpstreamTimesOut(t *testing.T) {
	s := setup{engine: engine.Options{ConnectTimeout: 300 * time.Millisecond}}
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, s, func(t *testing.T, g *gateway) {
		const port = 7777
		g.nft(g.H3, `table inet silent {
			chain input {
				type filter hook input priority filter;
				tcp dport 7777 drop
			}
		}`)
		g.dialIsReset(netip.AddrPortFrom(g.server(), port))
		if p := g.endedPairs(1)[0]; p.Reason != engine.ReasonConnectTimeout || p.Established {
			t.Errorf("%+v", p)
		}
	})
}

func TestClientThatLeavesWhileWeConnect(t *testing.T) {
	s := setup{engine: engine.Options{ConnectTimeout: patience}}
	eachWith(t, paths(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
		g.nft(g.H3, `table inet silent {
			chain input {
				type filter hook input priority filter;
				tcp dport 7777 drop
			}
		}`)
		client := g.dial(netip.AddrPortFrom(g.server(), 7777))
		g.until("the pair", func(s engine.Stats) bool { return s.Active == 1 })
		rst(client)
		if p := g.endedPairs(1)[0]; p.Reason != engine.ReasonReset || p.Established {
			t.Errorf("%+v", p)
		}
	})
}
