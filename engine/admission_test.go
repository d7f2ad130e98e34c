package engine_test

import (
	"golang.org/x/sys/unix"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

func TestMaxPairsPerSource(t *testing.T) {
	r := newRig(t, engine.Options{MaxPairsPerSource: 2})
	first, server := r.pair()
	second, _ := r.pair()
	r.dialReset()
	refused := func(n uint64) func(engine.Stats) bool {
		return func(s engine.Stats) bool { return s.Ended[engine.ReasonSourceLimit] == n }
	}
	r.until("refused", refused(1))
	r.until("counted", func(s engine.Stats) bool { return s.Active == 2 }) // by each loop
	first.Close()
	server.Close()
	r.until("ended", func(s engine.Stats) bool { return s.Active == 1 })
	third, server := r.pair()
	exchange(t, third, server, noise(100))
	r.dialReset()
	r.until("refused", refused(2))
	_ = second

	// Each source has a count of its own.
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := other.Dial("tcp", r.address())
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, r.keep(c), r.accept(), noise(100))
}

func TestDeniedDestinationResetsTheClient(t *testing.T) {
	r := newRig(t, engine.Options{Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}})
	r.dialReset()
	r.ended(engine.ReasonDenied, 1)
	if s := r.Stats(); s.Opened != 0 {
		t.Errorf("%d opened", s.Opened)
	}
}

// TestListenerSocketsAreUsed: sockets that the caller opened are used, whether they are more or
// fewer than the loops. A socket that cannot be one of them is refused.
func TestListenerSocketsAreUsed(t *testing.T) {
	for _, sockets := range []int{1, 3} {
		addr := netip.MustParseAddrPort("127.0.0.1:0")
		var files []*os.File
		var conns []syscall.Conn
		for range sockets {
			fd, err := tproxy.Listen(addr, tproxy.ListenOptions{ReusePort: sockets > 1})
			if err != nil {
				t.Fatal(err)
			}
			if addr, err = sock.LocalAddr(fd); err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "listener")
			files, conns = append(files, f), append(conns, f)
		}
		server, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln := engine.Listener{Mode: tproxy.Forward, Upstream: server.Addr().(*net.TCPAddr).AddrPort(), Sockets: conns}
		server.Close()

		wrong := ln
		wrong.Address = netip.MustParseAddrPort("127.0.0.1:1")
		if _, err := engine.New(engine.Options{Listeners: []engine.Listener{wrong}}); err == nil {
			t.Error("a socket with another address was taken")
		}
		r := newRig(t, engine.Options{Loops: 2, Listeners: []engine.Listener{ln}})
		for _, f := range files {
			f.Close()
		}
		if r.Addrs()[0] != addr {
			t.Errorf("listens on %v, not %v", r.Addrs()[0], addr)
		}
		for range 20 {
			r.dialReset() // its upstream has gone: but somebody accepted
		}
		r.ended(engine.ReasonDialError, 20)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null := engine.Listener{Mode: tproxy.Redirect, Sockets: []syscall.Conn{file}}
	if _, err := engine.New(engine.Options{Listeners: []engine.Listener{null}}); err == nil {
		t.Error("/dev/null was taken for a listener")
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("it was closed: %v", err)
	}
}

// TestNewKeepsNoSlicesOfTheCallers: changing Options after New has no effect.
func TestNewKeepsNoSlicesOfTheCallers(t *testing.T) {
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	up := server.Addr().(*net.TCPAddr).AddrPort()
	o := engine.Options{
		Listeners: []engine.Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: up}},
		Deny:      []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}
	r := newRig(t, o)
	r.server.Close()
	r.server = server
	t.Cleanup(func() { server.Close() })
	o.Deny[0] = netip.MustParsePrefix("127.0.0.0/8")
	o.Listeners[0].Upstream = netip.MustParseAddrPort("192.0.2.1:1")
	o.Listeners[0].Mode = tproxy.Redirect
	client, to := r.pair()
	exchange(t, client, to, noise(10))
}

// TestNewFailsWithoutThePrivilegeToSpoofOrMark: otherwise every client would be reset.
func TestNewFailsWithoutThePrivilegeToSpoofOrMark(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		t.Fatal(err)
	}
	fewer := all
	fewer[0].Effective &^= 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	if err := unix.Capset(&header, &fewer[0]); err != nil {
		t.Fatal(err)
	}
	defer unix.Capset(&header, &all[0])
	leak.Check(t)
	redirect := []engine.Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Redirect}}
	for what, o := range map[string]engine.Options{
		"IP_TRANSPARENT": {Listeners: redirect, Spoof: tproxy.SpoofFull},
		"SO_MARK":        {Listeners: redirect, Mark: 7},
		// An engine that only adopts.
		"clients' addresses": {Spoof: tproxy.SpoofIPOrNone},
	} {
		e, err := engine.New(o)
		if err == nil {
			e.Close()
			t.Errorf("%+v passed", o)
			continue
		}
		if !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("%v", err)
		}
	}
	if e, err := engine.New(engine.Options{Listeners: redirect}); err != nil {
		t.Errorf("without need: %v", err)
	} else {
		e.Close()
	}
}
