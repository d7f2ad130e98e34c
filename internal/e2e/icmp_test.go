package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// A router behind h2 has something to say about a connection that the relay opened in
// the client's name. Its ICMP error is addressed to the client, but is meant for the
// relay: "host unreachable" ends the dial at once, and "packet too big" makes
// segments smaller. Forwarded to the client it does neither, and every long
// transfer over a path with a smaller MTU comes to a stop.

// eachBackend is eachWith, and again for TPROXY with rules of iptables.
func eachBackend(t *testing.T, s setup, f func(t *testing.T, g *gateway)) {
	eachWith(t, append(families(tproxy.TPROXY), families(tproxy.Redirect)...), s, f)
	if !rules.IPTables.Installed() {
		return
	}
	s.rules = func(cfg *rules.Config) { cfg.Backend = rules.IPTables }
	t.Run("iptables", func(t *testing.T) { eachWith(t, families(tproxy.TPROXY), s, f) })
}

// routeBeyond makes h3 a router to a net behind it, and gives the net's parts.
func (g *gateway) routeBeyond() (ip, router, host string) {
	g.t.Helper()
	ip, router, host = "ip", "10.77.3.3/24", "10.77.3.4/24"
	if g.v6 {
		ip, router, host = "ip -6", "fd77:3::3/64", "fd77:3::4/64"
	}
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		g.setSysctl(g.H3, name, "1")
	}
	network := netip.MustParsePrefix(router).Masked()
	g.shell(g.H2, fmt.Sprintf("%s route add %v via %v", ip, network, g.server()))
	return ip, router, host
}

func TestUnreachableFromARouterEndsTheDial(t *testing.T) {
	s := setup{engine: engine.Options{ConnectTimeout: patience}}
	eachBackend(t, s, func(t *testing.T, g *gateway) {
		ip, _, host := g.routeBeyond()
		target := netip.MustParsePrefix(host)
		g.shell(g.H3, fmt.Sprintf("%s route add unreachable %v", ip, target.Masked()))
		g.dialIsReset(netip.AddrPortFrom(target.Addr(), 80))
		if p := g.endedPairs(1)[0]; p.Reason != engine.ReasonDialError {
			t.Errorf("%+v", p)
		}
		if s := g.Stats(); s.DialErrors["EHOSTUNREACH"]+s.DialErrors["ENETUNREACH"] != 1 {
			t.Errorf("dial errors %v", s.DialErrors)
		}
	})
}

func TestSmallerMTUBehindTheRelay(t *testing.T) {
	const amount = 16 * mebibyte
	eachBackend(t, setup{}, func(t *testing.T, g *gateway) {
		ip, router, host := g.routeBeyond()
		// The fourth host lives in the namespace of a process. Its own interface has the
		// usual MTU, so it announces the usual MSS; the router's is smaller.
		h4 := g.H3.Command(within(t), "unshare", "-n", "sh", "-c", "echo ready; exec sleep 1000")
		out, err := h4.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		started(t, h4.Start())
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		g.shell(g.H3, strings.NewReplacer("PID", fmt.Sprint(h4.PID()), "IP", ip, "ROUTER", router, "HOST", host, "DAD", noDAD(g.v6),
			"GATEWAY", netip.MustParsePrefix(router).Addr().String()).Replace(`
			ip link add beyond type veth peer name eth0 netns PID
			IP addr add ROUTER dev beyondDAD
			ip link set beyond mtu 1300 up
			nsenter -t PID -n IP addr add HOST dev eth0DAD
			nsenter -t PID -n ip link set eth0 up
			nsenter -t PID -n IP route add default via GATEWAY`))
		inner, err := listenInNetns(h4.PID(), netip.AddrPortFrom(netip.MustParsePrefix(host).Addr(), 0))
		if err != nil {
			t.Fatal(err)
		}
		defer inner.Close()
		l := &listener{inner, g, inner.Addr().(*net.TCPAddr).AddrPort()}

		client, server := g.pair(l)
		sent := send(client, stream(15, amount), true)
		expect(t, "server", server, 15, amount)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		// Few bytes back: an interface drops what is too big for it to have been sent by it.
		sent = send(server, stream(16, 100), true)
		expect(t, "client", client, 16, 100)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		t.Logf("the route now: %s", g.shell(g.H2, ip+" route get "+netip.MustParsePrefix(host).Addr().String()))
	})
}

// listenInNetns listens in the network namespace of a process.
func listenInNetns(pid int, at netip.AddrPort) (l *net.TCPListener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	}()
	<-done
	return l, err
}
