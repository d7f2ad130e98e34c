package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// localPort is diverted by localRules, whatever its address.
const localPort = 7777

// localRules divert what is meant for h2 itself too, which ours do not, and what h2's own
// programs say to loopback.
var localRules = map[tproxy.Mode]string{
	tproxy.TPROXY: `table inet careless {
		chain prerouting {
			type filter hook prerouting priority mangle;
			iifname "left" meta nfproto ipv4 tcp dport 7777 tproxy ip to :9091 meta mark set 1 accept
			iifname "left" meta nfproto ipv6 tcp dport 7777 tproxy ip6 to :9091 meta mark set 1 accept
		}
	}`,
	tproxy.Redirect: `table inet careless {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			iifname "left" tcp dport 7777 redirect to :9091
		}
		chain output {
			type nat hook output priority -100;
			ip daddr 127.0.0.0/8 tcp dport 7777 redirect to :9091
			ip6 daddr ::1 tcp dport 7777 redirect to :9091
		}
	}`,
}

// TestOwnAddressesAreDenied: careless rules divert what is meant for the relay's host. It
// must not be reached that way by default, neither by the address that clients know nor
// by the other, nor through loopback.
func TestOwnAddressesAreDenied(t *testing.T) {
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	for _, allow := range []bool{false, true} {
		t.Run(fmt.Sprintf("allow local %v", allow), func(t *testing.T) {
			s := setup{wildcard: true, noRules: true, engine: engine.Options{AllowLocal: allow, Spoof: tproxy.SpoofNone}}
			eachWith(t, all, s, func(t *testing.T, g *gateway) {
				g.nft(g.H2, localRules[g.mode])
				g.shell(g.H2, copiedRouting)
				l := g.listenOn(g.H2, netip.AddrPortFrom(unspecified(g.v6), localPort))
				var n int
				for _, name := range []string{netlab.Left, netlab.Right} {
					own := g.H2.Iface(name)
					to := netip.AddrPortFrom(own.Addr4, localPort)
					if g.v6 {
						to = netip.AddrPortFrom(own.Addr6, localPort)
					}
					n++
					if allow {
						client := g.dial(to)
						server := l.accept()
						exchange(t, client, server)
						client.Close()
						server.Close()
						continue
					}
					g.dialIsReset(to)
					if p := g.endedPairs(n)[n-1]; p.Reason != engine.ReasonDenied || p.Destination != to {
						t.Errorf("%v: %+v", to, p)
					}
				}
				if g.mode == tproxy.Redirect && !allow {
					to := netip.AddrPortFrom(g.loopback(), localPort)
					g.dialFromIsReset(g.H2, to)
					n++
					if p := g.endedPairs(n)[n-1]; p.Reason != engine.ReasonDenied || p.Destination != to {
						t.Errorf("%v: %+v", to, p)
					}
				}
				if s := g.Stats(); s.Accepted != uint64(n) {
					t.Errorf("accepted %d, want %d", s.Accepted, n)
				}
			})
		})
	}
}

func (g *gateway) loopback() netip.Addr {
	if g.v6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func unspecified(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// TestDeniedNetworks: one address of h3 may be reached, the other may not.
func TestDeniedNetworks(t *testing.T) {
	const second4, second6 = "10.77.2.4", "fd77:2::4"
	deny := []netip.Prefix{netip.MustParsePrefix(second4 + "/32"), netip.MustParsePrefix(second6 + "/128")}
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, setup{engine: engine.Options{Deny: deny}}, func(t *testing.T, g *gateway) {
		second := second4
		if g.v6 {
			second = second6
		}
		g.shell(g.H3, "ip addr add "+second+" dev eth0"+noDAD(g.v6))
		a := g.listen()
		b := netip.AddrPortFrom(netip.MustParseAddr(second), a.at.Port())
		g.listenOn(g.H3, b)
		client, server := g.pair(a)
		exchange(t, client, server)
		g.dialIsReset(b)
		if p := g.endedPairs(1)[0]; p.Reason != engine.ReasonDenied || p.Destination != b {
			t.Errorf("%+v", p)
		}
		exchange(t, client, server)
		if s := g.Stats(); s.Opened != 1 {
			t.Errorf("opened %d", s.Opened)
		}
		client.Close()
		server.Close()
	})
}

// TestOneSourceAtItsLimitKeepsNobodyOut: a client that has as many pairs as it may is
// refused, another is served. What counts as one client is an IPv4 address, and an IPv6
// network of 64 bits, all of whose addresses one host can have.
func TestOneSourceAtItsLimitKeepsNobodyOut(t *testing.T) {
	const most = 3
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, setup{engine: engine.Options{MaxPairsPerSource: most}}, func(t *testing.T, g *gateway) {
		neighbour, other := "10.77.1.5", "10.78.1.1"
		if g.v6 {
			neighbour, other = "fd77:1::5", "fd78:1::1"
		}
		for _, address := range []string{neighbour, other} {
			g.shell(g.H1, "ip addr add "+address+" dev eth0"+noDAD(g.v6))
			g.shell(g.H2, "ip route add "+address+" via "+g.client().String())
		}
		l := g.listen()
		l.serve(echo)
		from := func(address string) *knocker {
			return g.knock(netip.AddrPortFrom(netip.MustParseAddr(address), 0), l.at)
		}
		first := g.client().String()
		var clients []*knocker
		for range most {
			clients = append(clients, from(first))
		}
		ended := 0
		refused := func(address string) {
			t.Helper()
			c := from(address)
			if c.served {
				t.Errorf("%s was served", address)
			}
			ended++
			if p := g.endedPairs(ended)[ended-1]; p.Reason != engine.ReasonSourceLimit {
				t.Errorf("%+v", p)
			}
		}
		refused(first)
		if g.v6 {
			refused(neighbour)
		} else {
			clients = append(clients, from(neighbour))
		}
		clients = append(clients, from(other))
		for i, c := range clients {
			if !c.served {
				t.Errorf("client %d was refused", i)
			}
		}
		// A client that leaves makes room.
		clients[0].Close()
		ended++
		g.endedPairs(ended)
		again := from(first)
		if !again.served {
			t.Error("there is room again, and it was refused")
		}
		refused(first)
		if n := g.Stats().Ended[engine.ReasonSourceLimit]; n < 2 || n != uint64(ended-1) {
			t.Errorf("%d counted as refused, want %d", n, ended-1)
		}
		for _, c := range append(clients, again) {
			c.Close()
		}
	})
}
