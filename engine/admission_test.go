package engine_test

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/tprelay/tprelay/engine"
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
	first.Close()
	server.Close()
	r.until("ended", func(s engine.Stats) bool { return s.Active == 1 })
	third, server := r.pair()
	exchange(t, third, server, noise(100))
	r.dialReset()
	r.until("refused", refused(2))
	_ = second

	// Another source is another count.
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

// TestListenerSocketsAreUsed: sockets that somebody else opened serve, whether they are
// more or fewer than the loops, and what is not one of them is refused and stays the caller's.
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
			if addr, err = tproxy.LocalAddr(fd); err != nil {
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
