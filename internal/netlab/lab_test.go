package netlab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary also play the processes that tests start.
func TestMain(m *testing.M) {
	if err := netlab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

func newLab(t *testing.T, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	return netlabtest.New(t, cfg)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// pair connects two hosts by TCP.
func pair(t *testing.T, from, to *netlab.Host, addr netip.Addr) (client, server net.Conn) {
	t.Helper()
	l, err := to.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = from.Dial(within(t, 5*time.Second), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func TestHostsReachOneAnother(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	hosts := []*netlab.Host{lab.H1, lab.H2, lab.H3}
	for _, from := range hosts {
		for _, to := range hosts {
			for _, iface := range to.Ifaces {
				for _, addr := range []netip.Addr{iface.Addr4, iface.Addr6} {
					t.Run(from.Name+" to "+to.Name+" "+addr.String(), func(t *testing.T) {
						client, server := pair(t, from, to, addr)
						if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); got != want {
							t.Errorf("the server sees %s, the client is %s", got, want)
						}
					})
				}
			}
		}
	}
}

func TestGatewayIsOnThePath(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	for name, addr := range map[string]netip.Addr{
		"net.ipv4.ip_forward":          lab.H3.Addr4,
		"net.ipv6.conf.all.forwarding": lab.H3.Addr6,
	} {
		pair(t, lab.H1, lab.H3, addr)
		if err := lab.H2.SetSysctl(name, "0"); err != nil {
			t.Fatal(err)
		}
		if v, err := lab.H2.Sysctl(name); err != nil || v != "0" {
			t.Fatalf("%s is %q, error %v", name, v, err)
		}
		l, err := lab.H3.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := lab.H1.Dial(within(t, 100*time.Millisecond), "tcp", l.Addr().String())
		l.Close()
		if err == nil {
			conn.Close()
			t.Errorf("%s: connected although the gateway does not forward", addr)
		}
	}
}

func TestDialFromBindsAddressAndPort(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	for _, local := range []netip.AddrPort{
		netip.AddrPortFrom(lab.H1.Addr4, 4321),
		netip.AddrPortFrom(lab.H1.Addr6, 4321),
	} {
		to := lab.H3.Addr4
		if local.Addr().Is6() {
			to = lab.H3.Addr6
		}
		l, err := lab.H3.Listen("tcp", netip.AddrPortFrom(to, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := lab.H1.DialFrom(within(t, 5*time.Second), "tcp", local.String(), l.Addr().String())
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if conn.LocalAddr().String() != local.String() {
			t.Errorf("dialled from %s, wanted %s", conn.LocalAddr(), local)
		}
	}
}

func TestNamesAreNotResolved(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	if conn, err := lab.H1.Dial(context.Background(), "tcp", "localhost:80"); err == nil {
		conn.Close()
		t.Error("dialled a name")
	}
	if l, err := lab.H1.Listen("tcp", "localhost:0"); err == nil {
		l.Close()
		t.Error("listened on a name")
	}
}

func TestMSSBoundsSegmentsBothWays(t *testing.T) {
	lab := newLab(t, netlab.Config{MSS: 536})
	for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6, lab.H2.Addr4, lab.H2.Addr6} {
		to := lab.H3
		if addr == lab.H2.Addr4 || addr == lab.H2.Addr6 {
			to = lab.H2
		}
		client, server := pair(t, lab.H1, to, addr)
		for _, conn := range []net.Conn{client, server} {
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var mss int
			if ctl := raw.Control(func(fd uintptr) {
				mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
			}); ctl != nil || err != nil {
				t.Fatal(ctl, err)
			}
			if mss > 536 || mss < 500 {
				t.Errorf("%s -> %s: segments of %d bytes", conn.LocalAddr(), conn.RemoteAddr(), mss)
			}
		}
	}
}

func TestEnterPutsTheThreadIntoTheHost(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	ports := make(chan uint16)
	finish := make(chan struct{})
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		errs <- func() error {
			if err := lab.H3.Enter(); err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: lab.H3.Addr4.As4()}); err != nil {
				return err
			}
			if err := unix.Listen(fd, 1); err != nil {
				return err
			}
			name, err := unix.Getsockname(fd)
			if err != nil {
				return err
			}
			ports <- uint16(name.(*unix.SockaddrInet4).Port)
			<-finish
			return nil
		}()
	}()
	select {
	case err := <-errs:
		t.Fatal(err)
	case port := <-ports:
		if err := lab.H3.WaitListen(within(t, 5*time.Second), port); err != nil {
			t.Error(err)
		}
		conn, err := lab.H1.Dial(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(lab.H3.Addr4, port).String())
		if err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
	}
	close(finish)
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

func TestDoMayBeNested(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	want := errors.New("as it is")
	if err := lab.H1.Do(func() error { return lab.H1.Do(func() error { return want }) }); err != want {
		t.Errorf("got %v", err)
	}
}

func TestDoSurvivesAFunctionThatEndsItsGoroutine(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	err := lab.H1.Do(func() error { runtime.Goexit(); return nil })
	if err == nil || !strings.Contains(err.Error(), "ended the host's thread") {
		t.Errorf("got %v", err)
	}
	if err := lab.H1.Do(func() error { return nil }); err == nil {
		t.Error("the host has no thread, and yet it did something")
	}
}

func TestClosedLabRefusesEverything(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	_, dialErr := lab.H1.Dial(context.Background(), "tcp", "10.77.2.3:80")
	_, listenErr := lab.H1.Listen("tcp", "10.77.1.1:0")
	_, tempErr := lab.TempDir()
	for what, err := range map[string]error{
		"Do":      lab.H1.Do(func() error { return nil }),
		"Enter":   lab.H1.Enter(),
		"Dial":    dialErr,
		"Listen":  listenErr,
		"Command": lab.H1.Command(context.Background(), "true").Run(),
		"TempDir": tempErr,
	} {
		if !errors.Is(err, netlab.ErrClosed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestWrongConfigIsRefused(t *testing.T) {
	for _, cfg := range []netlab.Config{
		{MSS: 100},
		{Access: netlab.Link{Rate: 1}},
		{Access: netlab.Link{Delay: -1}},
		{Bottleneck: netlab.Link{Queue: -1}},
		{Bottleneck: netlab.Link{Rate: 1_000_000, Queue: 10}},
	} {
		lab, err := netlab.New(cfg)
		if err == nil {
			lab.Close()
			t.Errorf("%+v was taken", cfg)
		}
	}
}
