package rules_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// beyond is an address behind h3 that h3 says is unreachable.
func beyond(t *testing.T, lab *netlab.Lab, v6 bool) netip.Addr {
	t.Helper()
	ip, network, via, addr := "ip", "10.77.3.0/24", lab.H3.Addr4, "10.77.3.4"
	if v6 {
		ip, network, via, addr = "ip -6", "fd77:3::/64", lab.H3.Addr6, "fd77:3::4"
	}
	for _, setting := range []struct{ name, value string }{
		{"net.ipv4.ip_forward", "1"}, {"net.ipv6.conf.all.forwarding", "1"},
		{"net.ipv4.icmp_ratelimit", "0"}, {"net.ipv6.icmp.ratelimit", "0"}, // every packet gets its error
	} {
		if err := lab.H3.SetSysctl(setting.name, setting.value); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, lab.H2, fmt.Sprintf("%s route add %s via %v", ip, network, via))
	shell(t, lab.H3, fmt.Sprintf("%s route add unreachable %s", ip, network))
	return netip.MustParseAddr(addr)
}

// An ICMP error reaches whoever sent the packet that it is about: the relay, which
// borrows the client's address, or the client itself.
func TestICMPErrorsReachWhoSentThePacket(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		lab := newLab(t)
		cfg := f.config(t, mode, b)
		cfg.SetSysctls = true
		cfg.Transparent = true
		relay(t, lab, cfg, true)
		apply(t, lab.H2, cfg)
		var wg sync.WaitGroup // in parallel: over IPv6 each takes a second
		for _, server := range f.destinations(lab) {
			addr := beyond(t, lab, server.Is6())
			wg.Go(func() {
				answer := ask(t, lab, netip.AddrPortFrom(addr, serverPort))
				if !strings.HasPrefix(answer, "relayed") || !(strings.HasSuffix(answer, unix.EHOSTUNREACH.Error()) || strings.HasSuffix(answer, unix.ENETUNREACH.Error())) {
					t.Errorf("the relay dials %v: %q", addr, answer)
				}
			})
			// Nobody diverts these.
			for network, port := range map[string]uint16{"tcp": sshPort, "udp": serverPort} {
				wg.Go(func() {
					err := send(t, lab, network, netip.AddrPortFrom(addr, port))
					if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
						t.Errorf("the client dials %v over %s: %v", addr, network, err)
					}
				})
			}
		}
		wg.Wait()
	})
}

// send sends something from h1, again every second, and gives the error that comes back: a
// datagram, or the error that it meets, may be lost.
func send(t *testing.T, lab *netlab.Lab, network string, to netip.AddrPort) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := lab.H1.Dial(ctx, network, to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	// Without these, a UDP socket hears of closed ports only.
	if err := raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}); err != nil {
		return err
	}
	for {
		if _, err := c.Write([]byte("anybody?")); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}
