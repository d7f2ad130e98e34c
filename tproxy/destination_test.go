package tproxy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

// redirected listens on the given address, and redirects connections to port 80 of any host to it.
func redirected(t *testing.T, address string) (listener int, port uint16) {
	t.Helper()
	namespace(t)
	listener, port = listen(t, address, tproxy.ListenOptions{})
	nft(t, fmt.Sprintf(`table inet test {
		chain output {
			type nat hook output priority -100; policy accept;
			tcp dport 80 redirect to :%d
		}
	}`, port))
	return listener, port
}

var redirections = []struct{ what, listen, meant, self string }{
	{"IPv4", "0.0.0.0:0", serverV4, "127.0.0.1"},
	{"IPv6", "[::1]:0", serverV6, "::1"},
	{"IPv4 on a listener for both", "[::]:0", serverV4, "127.0.0.1"},
	{"IPv6 on a listener for both", "[::]:0", serverV6, "::1"},
}

func TestRedirectRemembersTheDestination(t *testing.T) {
	for _, r := range redirections {
		t.Run(r.what, func(t *testing.T) {
			listener, port := redirected(t, r.listen)
			meant := at(r.meant, 80)
			connect(t, meant)
			conn, client := accept(t, listener)
			if got, err := tproxy.Destination(conn, tproxy.Redirect, client.Addr()); got != meant || err != nil {
				t.Errorf("destination %v, %v; want %v", got, err, meant)
			}
			if got := local(t, conn); got != at(r.self, port) {
				t.Errorf("the socket is %v, want %v: nothing was redirected", got, at(r.self, port))
			}
			n := testing.AllocsPerRun(50, func() {
				if _, err := tproxy.Destination(conn, tproxy.Redirect, client.Addr()); err != nil {
					t.Error(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// haproxy issue 3192: in TPROXY mode, the answer of connection tracking is not the destination.
func TestTPROXYNeverAsksConnectionTracking(t *testing.T) {
	for _, r := range redirections {
		t.Run(r.what, func(t *testing.T) {
			listener, _ := redirected(t, r.listen)
			connect(t, at(r.meant, 80))
			conn, client := accept(t, listener)
			for _, mode := range []tproxy.Mode{tproxy.TPROXY, tproxy.Forward} {
				if got, err := tproxy.Destination(conn, mode, client.Addr()); got != local(t, conn) || err != nil {
					t.Errorf("%v: destination %v, %v; want the socket's own address %v", mode, got, err, local(t, conn))
				}
			}
		})
	}
}

func TestDirectConnectionIsENOENTWithoutTracking(t *testing.T) {
	for _, r := range redirections {
		t.Run(r.what, func(t *testing.T) {
			namespace(t)
			listener, port := listen(t, r.listen, tproxy.ListenOptions{})
			connect(t, at(r.self, port))
			conn, client := accept(t, listener)
			if got, err := tproxy.Destination(conn, tproxy.Redirect, client.Addr()); got != (netip.AddrPort{}) || err != unix.ENOENT {
				t.Errorf("destination %v, %v; want ENOENT", got, err)
			}
		})
	}
}

// The engine must be able to tell, because dialing this destination would be a loop.
func TestDirectConnectionIsOurselvesWithTracking(t *testing.T) {
	for _, r := range redirections {
		t.Run(r.what, func(t *testing.T) {
			listener, port := redirected(t, r.listen)
			self := at(r.self, port)
			connect(t, self)
			conn, client := accept(t, listener)
			if got, err := tproxy.Destination(conn, tproxy.Redirect, client.Addr()); got != self || err != nil {
				t.Errorf("destination %v, %v; want the listener's own address %v", got, err, self)
			}
		})
	}
}

// Connections of one listener keep their own destinations. (Two connections from one client port
// collide in REDIRECT mode; that is not tested here.)
func TestDestinationsOfOneListenerAreKeptApart(t *testing.T) {
	listener, _ := redirected(t, "[::]:0")
	for _, ip := range []string{serverV4, clientV4, serverV6, clientV6, "127.0.0.2"} {
		connect(t, at(ip, 80))
		conn, client := accept(t, listener)
		if got, err := tproxy.Destination(conn, tproxy.Redirect, client.Addr()); got != at(ip, 80) || err != nil {
			t.Errorf("destination %v, %v; want %s", got, err, ip)
		}
	}
}
