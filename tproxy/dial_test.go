package tproxy_test

import (
	"maps"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/tproxy"
)

// ends are a client and a server's listener and address, in a private namespace.
var ends = []struct{ what, listen, client, server string }{
	{"IPv4", serverV4 + ":80", clientV4, serverV4},
	{"IPv6", "[" + serverV6 + "]:80", clientV6, serverV6},
	{"IPv4 on a listener for both", "[::]:80", clientV4, serverV4},
	{"IPv4-mapped", "[::]:80", "::ffff:" + clientV4, "::ffff:" + serverV4},
}

func TestStepsBindAsAsked(t *testing.T) {
	for _, e := range ends {
		t.Run(e.what, func(t *testing.T) {
			namespace(t)
			listener, port := listen(t, e.listen, tproxy.ListenOptions{})
			client, server := at(e.client, 4321), at(e.server, port)
			d := tproxy.Dialer{Spoof: tproxy.SpoofFull}
			for _, want := range []tproxy.SpoofLevel{tproxy.LevelFull, tproxy.LevelIP, tproxy.LevelNone} {
				out, level := dial(t, d, client, server, want)
				if level != want {
					t.Errorf("level %v, want %v", level, want)
				}
				_, seen := accept(t, listener)
				if seen != local(t, out) {
					t.Errorf("level %v: the server sees %v, we are %v", want, seen, local(t, out))
				}
				sameIP, samePort := seen.Addr() == client.Addr().Unmap(), seen.Port() == client.Port()
				if sameIP != (want != tproxy.LevelNone) || samePort != (want == tproxy.LevelFull) {
					t.Errorf("level %v: the server sees %v of client %v", want, seen, client)
				}
			}
		})
	}
}

func TestClientMayBeAStranger(t *testing.T) {
	namespace(t)
	for _, c := range []struct{ client, server string }{{"192.0.2.1", serverV4}, {"2001:db8::1", serverV6}} {
		client := at(c.client, 4321)
		var d tproxy.Dialer
		fd, level, err := d.Dial(client, at(c.server, 80), tproxy.LevelFull)
		check(t, err)
		if got := local(t, fd); level != tproxy.LevelFull || got != client {
			t.Errorf("level %v, bound to %v; want %v", level, got, client)
		}
		unix.Close(fd)
	}
}

// A client may use one port for connections to several servers.
func TestOneClientPortToTwoServersIsFullForBoth(t *testing.T) {
	namespace(t)
	client := at(clientV4, 4321)
	d := tproxy.Dialer{Spoof: tproxy.SpoofFull}
	for _, server := range []string{serverV4 + ":80", serverV4 + ":81", "127.0.0.1:80"} {
		listener, _ := listen(t, server, tproxy.ListenOptions{})
		if _, level := dial(t, d, client, addr(server), tproxy.LevelFull); level != tproxy.LevelFull {
			t.Errorf("%s: level %v", server, level)
		}
		if _, seen := accept(t, listener); seen != client {
			t.Errorf("%s sees %v", server, seen)
		}
	}
}

func TestTakenConnectionFallsToIP(t *testing.T) {
	for _, e := range ends {
		t.Run(e.what, func(t *testing.T) {
			namespace(t)
			listener, port := listen(t, e.listen, tproxy.ListenOptions{})
			client, server := at(e.client, 4321), at(e.server, port)
			d := tproxy.Dialer{Spoof: tproxy.SpoofFull}
			for _, want := range []tproxy.SpoofLevel{tproxy.LevelFull, tproxy.LevelIP, tproxy.LevelIP} {
				if _, level := dial(t, d, client, server, tproxy.LevelFull); level != want {
					t.Errorf("level %v, want %v", level, want)
				}
				if _, seen := accept(t, listener); seen.Addr() != client.Addr().Unmap() {
					t.Errorf("the server sees %v", seen)
				}
			}
		})
	}
}

func TestPortOfAListenerFallsToIP(t *testing.T) {
	namespace(t)
	listen(t, clientV4+":4321", tproxy.ListenOptions{})
	listener, _ := listen(t, serverV4+":80", tproxy.ListenOptions{})
	_, level := dial(t, tproxy.Dialer{}, at(clientV4, 4321), at(serverV4, 80), tproxy.LevelFull)
	if _, seen := accept(t, listener); level != tproxy.LevelIP || seen.Addr() != netip.MustParseAddr(clientV4) {
		t.Errorf("level %v, the server sees %v", level, seen)
	}
}

// The server sees this host instead of the client only if the policy says so.
func TestLadderEndsAtIPUnlessNoneIsAllowed(t *testing.T) {
	namespace(t)
	ports(t, "40000", "40003")
	listen(t, serverV4+":80", tproxy.ListenOptions{})
	client, server := at(clientV4, 40000), at(serverV4, 80)
	for _, want := range []tproxy.SpoofLevel{tproxy.LevelFull, tproxy.LevelIP, tproxy.LevelIP, tproxy.LevelIP} { // the client's four ports
		if _, level := dial(t, tproxy.Dialer{}, client, server, tproxy.LevelFull); level != want {
			t.Fatalf("level %v, want %v", level, want)
		}
	}
	before := leak.Descriptors()
	for _, policy := range []tproxy.Spoof{tproxy.SpoofFull, tproxy.SpoofIP} {
		d := tproxy.Dialer{Spoof: policy}
		fd, level, err := d.Dial(client, server, policy.First(tproxy.TPROXY))
		if fd != -1 || level != tproxy.LevelIP || err != unix.EADDRNOTAVAIL {
			t.Errorf("%v: descriptor %d, level %v, %v; want EADDRNOTAVAIL at ip", policy, fd, level, err)
		}
	}
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
	for _, policy := range []tproxy.Spoof{tproxy.SpoofFullOrNone, tproxy.SpoofIPOrNone} {
		out, level := dial(t, tproxy.Dialer{Spoof: policy}, client, server, policy.First(tproxy.TPROXY))
		if level != tproxy.LevelNone || local(t, out).Addr() == client.Addr() {
			t.Errorf("%v: level %v as %v", policy, level, local(t, out))
		}
	}
}

func TestNobodySpeaksForAnAddressOfTheOtherFamily(t *testing.T) {
	_, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	client, server := addr("[fd99::9]:4321"), at("127.0.0.1", port)
	before := leak.Descriptors()
	d := tproxy.Dialer{Spoof: tproxy.SpoofFullOrNone}
	for _, ends := range [][2]netip.AddrPort{{client, server}, {server, client}} {
		for _, level := range []tproxy.SpoofLevel{tproxy.LevelFull, tproxy.LevelIP} {
			fd, at, err := d.Dial(ends[0], ends[1], level)
			if fd != -1 || at != level || err != unix.EAFNOSUPPORT {
				t.Errorf("%v as %v: descriptor %d, level %v, %v; want EAFNOSUPPORT", ends[1], ends[0], fd, at, err)
			}
		}
	}
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
	dial(t, d, client, server, tproxy.LevelNone) // as this host, whatever the client is
}

func TestDialedConnectionHasItsOptions(t *testing.T) {
	namespace(t)
	listen(t, serverV4+":80", tproxy.ListenOptions{})
	d := tproxy.Dialer{Mark: 0x7001, ConnOptions: connOptions}
	for _, level := range []tproxy.SpoofLevel{tproxy.LevelFull, tproxy.LevelIP, tproxy.LevelNone} {
		fd, _ := dial(t, d, at(clientV4, 4321), at(serverV4, 80), level)
		expectOptions(t, fd, append(wantOptions, wantOption{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, 0x7001}))
	}
}

// A dial that fails for another reason than a taken address does not go on to the next level.
func TestOtherErrorsEndTheLadder(t *testing.T) {
	namespace(t)
	before := leak.Descriptors()
	d := tproxy.Dialer{Spoof: tproxy.SpoofFullOrNone}
	fd, level, err := d.Dial(at(clientV4, 4321), addr("198.51.100.1:80"), tproxy.LevelFull) // no route
	if fd != -1 || level != tproxy.LevelFull || err != unix.ENETUNREACH {
		t.Errorf("descriptor %d, level %v, %v; want ENETUNREACH at full", fd, level, err)
	}
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
}

func TestRefusalIsToldBySOError(t *testing.T) {
	namespace(t)
	var d tproxy.Dialer
	fd, _, err := d.Dial(netip.AddrPort{}, at(serverV4, 80), tproxy.LevelNone)
	check(t, err)
	defer unix.Close(fd)
	await(t, fd, unix.POLLOUT)
	if e := unix.Errno(getsockopt(t, fd, unix.SOL_SOCKET, unix.SO_ERROR)); e != unix.ECONNREFUSED {
		t.Errorf("SO_ERROR is %v", e)
	}
}
