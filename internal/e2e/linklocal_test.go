package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// linkLocal is a host's link-local address on one of its interfaces, with the interface's index as
// the zone. The kernel gives the address some time after the link has come up.
func linkLocal(t *testing.T, h *netlab.Host, name string) netip.Addr {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		addr, err := findLinkLocal(h, name)
		if err == nil {
			return addr
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func findLinkLocal(h *netlab.Host, name string) (addr netip.Addr, err error) {
	err = h.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP); ip.Is6() && ip.IsLinkLocalUnicast() {
				addr = ip.WithZone(fmt.Sprint(i.Index))
				return nil
			}
		}
		return fmt.Errorf("%s has no link-local address", name)
	})
	return addr, err
}

// ends keeps the pairs that have ended.
type ends struct {
	mu    sync.Mutex
	pairs []engine.PairInfo
}

func (e *ends) pairEnded(i engine.PairInfo) {
	e.mu.Lock()
	e.pairs = append(e.pairs, i)
	e.mu.Unlock()
}

// TestLinkLocalAddresses: clients, listeners and upstreams may have addresses that mean nothing
// without their link, named or by number.
func TestLinkLocalAddresses(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	client := linkLocal(t, lab.H1, lab.H1.Ifaces[0].Name)
	near, far := linkLocal(t, lab.H2, netlab.Left), linkLocal(t, lab.H2, netlab.Right)
	server := linkLocal(t, lab.H3, lab.H3.Ifaces[0].Name)
	at, err := lab.H3.Listen("tcp", netip.AddrPortFrom(server, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	port := at.Addr().(*net.TCPAddr).AddrPort().Port()
	upstream := netip.AddrPortFrom(server.WithZone(far.Zone()), port) // as h2 sees it
	named := netip.AddrPortFrom(server.WithZone(netlab.Right), port)
	for name, c := range map[string]struct {
		listen   netip.Addr
		upstream netip.AddrPort
		decision netip.AddrPort
	}{
		"numbers":          {near, upstream, netip.AddrPort{}},
		"names":            {near.WithZone(netlab.Left), named, netip.AddrPort{}},
		"by a decision":    {near, netip.MustParseAddrPort("192.0.2.1:80"), named},
		"from a wildcard":  {netip.IPv6Unspecified(), upstream, netip.AddrPort{}},
		"to a wrong link":  {near, netip.AddrPortFrom(server.WithZone(near.Zone()), port), netip.AddrPort{}},
		"to no such link":  {near, netip.MustParseAddrPort("192.0.2.1:80"), netip.AddrPortFrom(server.WithZone("nolink"), port)},
		"denied, by a net": {near, upstream, netip.AddrPort{}},
	} {
		t.Run(name, func(t *testing.T) {
			told := new(ends)
			o := engine.Options{
				Listeners:  []engine.Listener{{Address: netip.AddrPortFrom(c.listen, relayPort), Mode: tproxy.Forward, Upstream: c.upstream}},
				ThreadInit: lab.H2.Enter,
				Observer:   engine.Observer{PairEnded: told.pairEnded},
			}
			if name == "denied, by a net" {
				o.Deny = []netip.Prefix{netip.MustParsePrefix("fe80::/10")}
			}
			if name == "to a wrong link" {
				o.ConnectTimeout = time.Second // nobody answers there
			}
			if c.decision.IsValid() {
				o.Interceptor = intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
					return intercept.Decision{Destination: c.decision}
				})
			}
			e, err := engine.New(o)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- e.Run(context.Background()) }()
			defer func() {
				e.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			if c.listen.IsLinkLocalUnicast() && e.Addrs()[0] != netip.AddrPortFrom(near, relayPort) {
				t.Errorf("listens on %v", e.Addrs()[0])
			}
			conn, err := lab.H1.Dial(within(t), "tcp", netip.AddrPortFrom(near.WithZone(client.Zone()), relayPort).String())
			reason := engine.ReasonReset
			switch name {
			case "to no such link":
				reason = engine.ReasonDialError
			case "to a wrong link":
				reason = engine.ReasonConnectTimeout
			case "denied, by a net":
				reason = engine.ReasonDenied
			default:
				if err != nil {
					t.Fatal(err)
				}
				other, err := at.Accept()
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, conn.(*net.TCPConn), other.(*net.TCPConn))
				other.(*net.TCPConn).SetLinger(0)
				other.Close()
			}
			var i engine.PairInfo
			for end := time.Now().Add(patience); i.Reason == engine.ReasonNone; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the pair has not ended")
				}
				told.mu.Lock()
				if len(told.pairs) > 0 {
					i = told.pairs[0]
				}
				told.mu.Unlock()
			}
			if conn != nil {
				conn.Close()
			}
			if i.Reason == engine.ReasonDialError && name == "to a wrong link" {
				reason = i.Reason // the neighbour was given up for lost first
			}
			if i.Reason != reason {
				t.Errorf("ended by %v, %v", i.Reason, i.Err)
			}
			if i.Client.Addr() != client.WithZone(near.Zone()) {
				t.Errorf("client %v, want %v", i.Client, client.WithZone(near.Zone()))
			}
			if reason == engine.ReasonReset && i.Connected != upstream {
				t.Errorf("connected to %v, want %v", i.Connected, upstream)
			}
		})
	}
}
