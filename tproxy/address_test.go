package tproxy_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// families are addresses to listen on, and to connect to.
var families = []struct{ what, listen, connect string }{
	{"IPv4", "127.0.0.1:0", "127.0.0.1"},
	{"IPv6", "[::1]:0", "::1"},
	{"IPv4 on a listener for both", "[::]:0", "127.0.0.1"},
	{"IPv6 on a listener for both", "[::]:0", "::1"},
}

func TestBothEndsAgreeOnTheirAddresses(t *testing.T) {
	for _, f := range families {
		t.Run(f.what, func(t *testing.T) {
			listener, port := listen(t, f.listen, tproxy.ListenOptions{})
			out := connect(t, at(f.connect, port))
			in, client := accept(t, listener)
			if server := at(f.connect, port); peer(t, out) != server || local(t, in) != server {
				t.Errorf("server is %v; the client says %v, the server %v", server, peer(t, out), local(t, in))
			}
			if client != local(t, out) || client != peer(t, in) || client.Port() == 0 {
				t.Errorf("client is %v; it says %v, the server %v", client, local(t, out), peer(t, in))
			}
			if want := netip.MustParseAddr(f.connect); client.Addr() != want || client.Addr().Is4In6() {
				t.Errorf("client is %v, want %v", client, want)
			}
		})
	}
}

func TestAddressesDoNotAllocate(t *testing.T) {
	for _, f := range families {
		t.Run(f.what, func(t *testing.T) {
			listener, port := listen(t, f.listen, tproxy.ListenOptions{})
			destination := at(f.connect, port)
			var d tproxy.Dialer
			ready := make([]unix.PollFd, 1)
			n := testing.AllocsPerRun(50, func() {
				out, _, err := d.Dial(netip.AddrPort{}, destination, tproxy.LevelNone)
				if err != nil {
					t.Error(err)
				}
				ready[0] = unix.PollFd{Fd: int32(listener), Events: unix.POLLIN}
				if _, err := unix.Poll(ready, patience); err != nil {
					t.Error(err)
				}
				in, _, err := tproxy.Accept(listener)
				if err != nil {
					t.Error(err)
				}
				_, a := sock.LocalAddr(in)
				_, b := sock.PeerAddr(in)
				if _, c := tproxy.Destination(in, tproxy.TPROXY, destination.Addr()); a != nil || b != nil || c != nil {
					t.Error(a, b, c)
				}
				unix.Close(in)
				unix.Close(out)
			})
			if n != 0 {
				t.Errorf("%v allocations per connection", n)
			}
		})
	}
}

func TestAddressOfWhatIsNoConnection(t *testing.T) {
	if _, err := sock.LocalAddr(-1); err != unix.EBADF {
		t.Errorf("local address: %v", err)
	}
	listener, _ := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	if _, err := sock.PeerAddr(listener); err != unix.ENOTCONN {
		t.Errorf("peer address: %v", err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if a, err := sock.LocalAddr(fds[0]); a.IsValid() || err != nil {
		t.Errorf("a Unix socket has address %v, %v", a, err)
	}
}

func BenchmarkLocalAddr(b *testing.B) {
	listener, _ := listen(b, "127.0.0.1:0", tproxy.ListenOptions{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sock.LocalAddr(listener); err != nil {
			b.Fatal(err)
		}
	}
}

// TestZonesBecomeNumbers: the kernel knows interfaces by their index.
func TestZonesBecomeNumbers(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	check(t, err)
	for text, want := range map[string]string{
		"192.0.2.1:80":                            "192.0.2.1:80",
		"[2001:db8::1]:80":                        "[2001:db8::1]:80",
		"[fe80::1]:80":                            "[fe80::1]:80",
		"[fe80::1%17]:80":                         "[fe80::1%17]:80",
		"[fe80::1%lo]:80":                         fmt.Sprintf("[fe80::1%%%d]:80", lo.Index),
		"[fe80::1%nolink]:80":                     "",
		"[fe80::1%a-name-longer-than-fifteen]:80": "",
	} {
		got, err := sock.NumericZone(netip.MustParseAddrPort(text))
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
