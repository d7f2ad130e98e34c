package e2e

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// The spoofing ladder where addresses are scarce: h2 has two ports to choose from, and
// every connection wants the same 4-tuple.

const scarcePorts = "40000 40001"

// refusedLevel stands for a client that was reset, because the policy had no level left.
const refusedLevel = tproxy.LevelFull + 1

// ladders are, for every policy, the levels of connections that come one after the other
// and stay.
var ladders = map[tproxy.Spoof][]tproxy.SpoofLevel{
	tproxy.SpoofFull:       {tproxy.LevelFull, tproxy.LevelIP, tproxy.LevelIP, refusedLevel, refusedLevel},
	tproxy.SpoofIP:         {tproxy.LevelIP, tproxy.LevelIP, refusedLevel, refusedLevel},
	tproxy.SpoofNone:       {tproxy.LevelNone, tproxy.LevelNone, refusedLevel},
	tproxy.SpoofFullOrNone: {tproxy.LevelFull, tproxy.LevelIP, tproxy.LevelIP, tproxy.LevelNone, tproxy.LevelNone, refusedLevel},
	tproxy.SpoofIPOrNone:   {tproxy.LevelIP, tproxy.LevelIP, tproxy.LevelNone, tproxy.LevelNone, refusedLevel},
}

// TestLadderWithScarcePorts: each policy goes as far down as it says, resets clients when no level
// is left, counts every level, and climbs again when a port is free.
func TestLadderWithScarcePorts(t *testing.T) {
	for spoof, levels := range ladders {
		t.Run(spoof.String(), func(t *testing.T) {
			var to atomic.Pointer[netip.AddrPort]
			s := setup{engine: engine.Options{
				Spoof: spoof,
				Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
					return intercept.Decision{Destination: *to.Load()}
				}),
			}}
			eachWith(t, families(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
				g.setSysctl(g.H2, "net.ipv4.ip_local_port_range", scarcePorts)
				l := g.listen()
				to.Store(&l.at)
				meant := l.at // another each time: the client's port is the same
				var clients, servers []*net.TCPConn
				var refused int
				come := func(want tproxy.SpoofLevel) {
					t.Helper()
					meant = netip.AddrPortFrom(meant.Addr(), meant.Port()-1)
					if want == refusedLevel {
						g.dialFromPortIsReset(clientPort, meant)
						refused++
						return
					}
					client := g.dialFrom(clientPort, meant)
					server := l.accept()
					exchange(t, client, server)
					if got := g.levelOf(remote(server)); got != want {
						t.Errorf("connection %d came as %v, level %v; want %v", len(clients), remote(server), got, want)
					}
					clients, servers = append(clients, client), append(servers, server)
				}
				for _, want := range levels {
					come(want)
				}
				// Whose port comes free again is the next one's.
				first := 0
				for i := range clients {
					if g.levelOf(remote(servers[i])) != tproxy.LevelFull {
						first = i
						break
					}
				}
				free := g.levelOf(remote(servers[first]))
				ended := len(g.endedPairs(refused))
				servers[first].Close() // first, so that no TIME_WAIT holds the port on h2
				expect(t, "client", clients[first], 0, 0)
				clients[first].Close()
				g.endedPairs(ended + 1)
				come(free)

				s := g.Stats()
				count := map[tproxy.SpoofLevel]uint64{free: 1}
				for _, level := range levels {
					count[level]++
				}
				for level := range refusedLevel {
					if s.SpoofLevels[level] != count[level] {
						t.Errorf("levels %v; want %d of %v", s.SpoofLevels, count[level], level)
					}
				}
				if n := s.DialErrors["EADDRNOTAVAIL"] + s.DialErrors["EADDRINUSE"]; n != uint64(refused) || s.Ended[engine.ReasonDialError] != n {
					t.Errorf("%d refused: dial errors %v, ended %v", refused, s.DialErrors, s.Ended)
				}
				for i := range clients {
					servers[i].Close()
					clients[i].Close()
				}
			})
		})
	}
}

// levelOf tells the level from what the server sees of a client that has clientPort.
func (g *gateway) levelOf(seen netip.AddrPort) tproxy.SpoofLevel {
	switch {
	case seen.Addr() != g.client():
		return tproxy.LevelNone
	case seen.Port() == clientPort:
		return tproxy.LevelFull
	}
	return tproxy.LevelIP
}

// dialFromPortIsReset is dialIsReset from a port of h1.
func (g *gateway) dialFromPortIsReset(port uint16, to netip.AddrPort) {
	g.t.Helper()
	if c := g.knock(netip.AddrPortFrom(g.client(), port), to); c.served {
		g.t.Errorf("%v was reached", to)
		c.Close()
	}
}

// TestPortBoundOnTheRelay: a program on h2 has bound the client's address and port, and
// would not share them (no SO_REUSEADDR); it need not listen. The policies that begin
// with the client's port go one level down.
func TestPortBoundOnTheRelay(t *testing.T) {
	for _, spoof := range []tproxy.Spoof{tproxy.SpoofFull, tproxy.SpoofIP, tproxy.SpoofFullOrNone} {
		t.Run(spoof.String(), func(t *testing.T) {
			s := setup{engine: engine.Options{Spoof: spoof}}
			eachWith(t, families(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
				fd := g.bindAlone(g.H2, netip.AddrPortFrom(g.client(), clientPort))
				l := g.listen()
				for range 3 {
					client := g.dialFrom(clientPort, l.at)
					server := l.accept()
					exchange(t, client, server)
					if level := g.levelOf(remote(server)); level != tproxy.LevelIP {
						t.Errorf("came as %v", remote(server))
					}
					server.Close()
					expect(t, "client", client, 0, 0)
					client.Close()
				}
				g.endedPairs(3)
				unix.Close(fd)
				client := g.dialFrom(clientPort, l.at)
				server := l.accept()
				exchange(t, client, server)
				full := uint64(1)
				if spoof == tproxy.SpoofIP {
					full = 0
				}
				if s := g.Stats(); s.SpoofLevels[tproxy.LevelFull] != full || s.SpoofLevels[tproxy.LevelIP] != 4-full || s.SpoofLevels[tproxy.LevelNone] != 0 {
					t.Errorf("levels: %v", s.SpoofLevels)
				}
				server.Close()
				client.Close()
			})
		})
	}
}

// bindAlone binds a socket of h to an address that need not be h's, without SO_REUSEADDR.
func (g *gateway) bindAlone(h *netlab.Host, to netip.AddrPort) (fd int) {
	g.t.Helper()
	err := h.Do(func() (err error) {
		var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
		family, level, name := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
		if to.Addr().Is6() {
			addr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
			family, level, name = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		} else {
			addr.(*unix.SockaddrInet4).Addr = to.Addr().As4()
		}
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(fd, level, name, 1); err == nil {
			err = unix.Bind(fd, addr)
		}
		if err != nil {
			unix.Close(fd)
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return fd
}

// TestScarcePortsInTimeWait: every connection leaves its port in TIME_WAIT on the relay,
// since the client closes first and the server speaks no timestamps. When no port is left, clients
// are reset at once, and do not wait for a minute.
func TestScarcePortsInTimeWait(t *testing.T) {
	const come = 8
	for spoof, most := range map[tproxy.Spoof]map[tproxy.SpoofLevel]uint64{
		tproxy.SpoofFull:       {tproxy.LevelFull: 1, tproxy.LevelIP: 2},
		tproxy.SpoofIP:         {tproxy.LevelIP: 2},
		tproxy.SpoofFullOrNone: {tproxy.LevelFull: 1, tproxy.LevelIP: 2, tproxy.LevelNone: 2},
	} {
		t.Run(spoof.String(), func(t *testing.T) {
			eachWith(t, families(tproxy.TPROXY), setup{engine: engine.Options{Spoof: spoof}}, func(t *testing.T, g *gateway) {
				g.setSysctl(g.H2, "net.ipv4.ip_local_port_range", scarcePorts)
				g.setSysctl(g.H3, "net.ipv4.tcp_timestamps", "0")
				g.setSysctl(g.H1, "net.ipv4.tcp_max_tw_buckets", "0") // so that it can come again from the same port
				l := g.listen()
				l.serve(echo)
				var served []bool
				for i := range come {
					c := g.knock(netip.AddrPortFrom(g.client(), clientPort), l.at)
					served = append(served, c.served)
					if c.served {
						if err := c.CloseWrite(); err != nil {
							t.Fatal(err)
						}
						expect(t, "client", c.TCPConn, 0, 0)
					}
					c.Close()
					g.endedPairs(i + 1)
				}
				s := g.Stats()
				t.Logf("served: %v, levels %v, dial errors %v", served, s.SpoofLevels, s.DialErrors)
				var total uint64
				for level, n := range s.SpoofLevels {
					total += n
					if n > most[level] {
						t.Errorf("%d on level %v, of which there are %d", n, level, most[level])
					}
				}
				if first := slices.Index(served, false); first <= 0 {
					t.Error("ports never ran out, or never were there")
				}
				if s.Ended[engine.ReasonDialError]+total != come {
					t.Errorf("%d served, %v", total, s.Ended)
				}
			})
		})
	}
}
