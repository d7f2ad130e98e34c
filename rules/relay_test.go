package rules_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
	"golang.org/x/sys/unix"
)

// server answers every connection on h3 with "direct CLIENT", and ends it.
func server(t *testing.T, lab *netlab.Lab, port int) {
	t.Helper()
	l, err := lab.H3.Listen("tcp", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) {
		fmt.Fprintf(c, "direct %v", unmapped(c.RemoteAddr()))
	})
}

// serve calls handle for every connection until the test ends, and then ends those
// that are left: a test that failed may not have closed its own.
func serve(t *testing.T, l net.Listener, handle func(net.Conn)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		wg.Wait()
	})
}

func unmapped(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// relay listens on h2 as cfg says, and answers every connection with
// "relayed DESTINATION: " and what the destination answers to a connection in
// the client's name (its address; a port of the kernel's choice).
func relay(t *testing.T, lab *netlab.Lab, cfg rules.Config, spoof bool) (listeners []net.Listener) {
	t.Helper()
	for _, at := range cfg.Listen {
		lc := net.ListenConfig{Control: transparent(cfg.Mode == tproxy.TPROXY)}
		var l net.Listener
		err := lab.H2.Do(func() (err error) {
			// A listener that was closed just now may live on for a moment: in a process
			// that another test forks and that has not yet executed its program.
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				l, err = lc.Listen(context.Background(), "tcp", at.String())
				if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
					return err
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		serve(t, l, func(c net.Conn) {
			destination, err := destinationOf(c.(*net.TCPConn), cfg.Mode)
			if err != nil {
				fmt.Fprintf(c, "relay: %v", err)
				return
			}
			fmt.Fprintf(c, "relayed %v: ", destination)
			out, err := dialFromH2(lab, unmapped(c.RemoteAddr()).Addr(), destination, spoof)
			if err != nil {
				fmt.Fprintf(c, "dial: %v", err)
				return
			}
			defer out.Close()
			io.Copy(c, out)
		})
	}
	return listeners
}

func transparent(on bool) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		if !on {
			return nil
		}
		var v4, v6 error
		err := raw.Control(func(fd uintptr) {
			v4 = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			v6 = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		})
		if v4 == nil || v6 == nil {
			return err
		}
		return v4
	}
}

func destinationOf(c *net.TCPConn, mode tproxy.Mode) (destination netip.AddrPort, err error) {
	if mode == tproxy.TPROXY {
		return unmapped(c.LocalAddr()), nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return destination, err
	}
	outside := raw.Control(func(fd uintptr) {
		destination, err = tproxy.Destination(int(fd), mode, unmapped(c.RemoteAddr()).Addr())
	})
	return destination, errors.Join(outside, err)
}

// dialFromH2 dials on a thread of its own, which ends with the goroutine.
func dialFromH2(lab *netlab.Lab, client netip.Addr, destination netip.AddrPort, spoof bool) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := lab.H2.Enter(); err != nil {
			results <- result{nil, err}
			return
		}
		d := net.Dialer{Timeout: 5 * time.Second, Control: transparent(spoof)}
		if spoof {
			d.LocalAddr = &net.TCPAddr{IP: client.AsSlice()}
		}
		c, err := d.Dial("tcp", destination.String())
		results <- result{c, err}
	}()
	r := <-results
	return r.conn, r.err
}

// ask connects from h1 and gives what it is told.
func ask(t *testing.T, lab *netlab.Lab, to netip.AddrPort) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := lab.H1.Dial(ctx, "tcp", to.String())
	if err != nil {
		return "error: " + err.Error()
	}
	defer c.Close()
	answer, err := io.ReadAll(c)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(answer)
}
