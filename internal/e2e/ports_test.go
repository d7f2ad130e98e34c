package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/tproxy"
)

// A transparent relay borrows ports of others. These are the ways in which they
// turn out to be in use.

const clientPort = 33333

// exchange sends a few bytes each way.
func exchange(t *testing.T, client, server *net.TCPConn) {
	t.Helper()
	for i, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		if _, err := way[0].Write([]byte("knock")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "knock" {
			t.Fatalf("way %d: %q, %v", i, got, err)
		}
	}
}

func TestSameClientPortToTwoServers(t *testing.T) {
	all := append(variants(tproxy.TPROXY), families(tproxy.Redirect)...)
	each(t, all, func(t *testing.T, g *gateway) {
		// Another address, another port on the first address: three servers.
		second := "10.77.2.4"
		if g.v6 {
			second = "fd77:2::4"
		}
		g.shell(g.H3, "ip addr add "+second+" dev eth0"+noDAD(g.v6))
		a := g.listen()
		b := g.listenOn(g.H3, netip.AddrPortFrom(netip.MustParseAddr(second), a.at.Port()))
		c := g.listen()
		for range 2 { // the second time their former connections are not long gone
			var clients, servers []*net.TCPConn
			for _, l := range []*listener{a, b, c} {
				clients = append(clients, g.dialFrom(clientPort, l.at))
				servers = append(servers, l.accept())
			}
			for i := range clients {
				exchange(t, clients[i], servers[i])
				if g.mode == tproxy.TPROXY && remote(servers[i]) != local(clients[i]) {
					t.Errorf("%v came as %v", local(clients[i]), remote(servers[i]))
				}
			}
			before := len(g.endedPairs(int(g.Stats().Accepted) - 3))
			for i := range clients {
				servers[i].Close() // first, so that the client's port is free again at once
				if _, err := clients[i].Read(make([]byte, 1)); err == nil {
					t.Error("more bytes")
				}
				clients[i].Close()
			}
			for i, p := range g.endedPairs(before + 3)[before:] {
				// In REDIRECT mode three connections from one port become three to one
				// address; the kernel gives the later ones other ports, which is what
				// the relay sees of the client.
				if g.mode == tproxy.TPROXY && p.Client.Port() != clientPort || p.Client.Addr() != g.client() || p.Reason != engine.ReasonEOF {
					t.Errorf("%d: %+v", i, p)
				}
			}
		}
		s := g.Stats()
		if g.mode == tproxy.TPROXY && s.SpoofLevels[tproxy.LevelFull] != 6 || s.Opened != 6 {
			t.Errorf("opened %d, levels %v", s.Opened, s.SpoofLevels)
		}
	})
}

func noDAD(v6 bool) string {
	if v6 {
		return " nodad"
	}
	return ""
}

// TestSameFourTupleTwice: two connections from the same port to the same server
// cannot exist. An interceptor that sends two destinations to one server asks for it.
func TestSameFourTupleTwice(t *testing.T) {
	var to atomic.Pointer[netip.AddrPort]
	s := setup{engine: engine.Options{
		Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
			return intercept.Decision{Destination: *to.Load()}
		}),
	}}
	eachWith(t, families(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
		l := g.listen()
		to.Store(&l.at)
		meant := []netip.AddrPort{l.at, netip.AddrPortFrom(l.at.Addr(), l.at.Port()-1)}
		for i, destination := range meant {
			client := g.dialFrom(clientPort, destination)
			server := l.accept()
			exchange(t, client, server)
			if remote(server).Addr() != g.client() || (remote(server).Port() == clientPort) != (i == 0) {
				t.Errorf("connection %d came as %v", i, remote(server))
			}
			t.Cleanup(func() { server.Close(); client.Close() })
		}
		if s := g.Stats(); s.SpoofLevels[tproxy.LevelFull] != 1 || s.SpoofLevels[tproxy.LevelIP] != 1 {
			t.Errorf("levels: %v", s.SpoofLevels)
		}
	})
}

// TestPortTakenOnTheRelay: somebody on h2 has bound the client's address and port.
func TestPortTakenOnTheRelay(t *testing.T) {
	each(t, families(tproxy.TPROXY), func(t *testing.T, g *gateway) {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				// One of them fits the family.
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			})
		}}
		lc.SetMultipathTCP(false)
		var taken net.Listener
		err := g.H2.Do(func() (err error) {
			taken, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(g.client(), clientPort).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		l := g.listen()
		client := g.dialFrom(clientPort, l.at)
		server := l.accept()
		exchange(t, client, server)
		if remote(server).Addr() != g.client() || remote(server).Port() == clientPort {
			t.Errorf("came as %v", remote(server))
		}
		if s := g.Stats(); s.SpoofLevels[tproxy.LevelIP] != 1 || s.SpoofLevels[tproxy.LevelFull] != 0 {
			t.Errorf("levels: %v", s.SpoofLevels)
		}
		server.Close()
		client.Close()
	})
}
