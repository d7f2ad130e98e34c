package rules_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
	"golang.org/x/sys/unix"
)

func TestConnectionsAreDivertedAndSSHIsNot(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		lab := newLab(t)
		server(t, lab, serverPort)
		server(t, lab, sshPort)
		cfg := f.config(t, mode, b)
		cfg.SetSysctls = true
		cfg.Transparent = true // both modes spoof here
		relay(t, lab, cfg, true)
		apply(t, lab.H2, cfg)
		for _, addr := range f.destinations(lab) {
			client := lab.H1.Addr4
			if addr.Is6() {
				client = lab.H1.Addr6
			}
			to := netip.AddrPortFrom(addr, serverPort)
			want := fmt.Sprintf("relayed %v: direct %v", to, netip.AddrPortFrom(client, 0))
			want = strings.TrimSuffix(want, "0")
			for range 3 {
				if answer := ask(t, lab, to); !strings.HasPrefix(answer, want) {
					t.Errorf("%v answers %q, want %q...", to, answer, want)
				}
			}
			if answer := ask(t, lab, netip.AddrPortFrom(addr, sshPort)); !strings.HasPrefix(answer, "direct") {
				t.Errorf("ssh to %v answers %q", addr, answer)
			}
		}
		cfg.Ports = rules.Ports{{First: sshPort, Last: sshPort}}
		apply(t, lab.H2, cfg)
		for _, addr := range f.destinations(lab) {
			if answer := ask(t, lab, netip.AddrPortFrom(addr, sshPort)); !strings.HasPrefix(answer, "relayed") {
				t.Errorf("ssh, named, to %v answers %q", addr, answer)
			}
			if answer := ask(t, lab, netip.AddrPortFrom(addr, serverPort)); !strings.HasPrefix(answer, "direct") {
				t.Errorf("a port not named, to %v, answers %q", addr, answer)
			}
		}
		remove(t, lab.H2, cfg)
		for _, addr := range f.destinations(lab) {
			if answer := ask(t, lab, netip.AddrPortFrom(addr, sshPort)); !strings.HasPrefix(answer, "direct") {
				t.Errorf("after remove %v answers %q", addr, answer)
			}
		}
	})
}

func TestExclusionsAndTheGatewayItselfAreNotDiverted(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		lab := newLab(t)
		server(t, lab, serverPort)
		own, err := lab.H2.Listen("tcp", fmt.Sprintf("[::]:%d", serverPort))
		if err != nil {
			t.Fatal(err)
		}
		serve(t, own, func(c net.Conn) { io.WriteString(c, "gateway") })
		cfg := f.config(t, mode, b)
		cfg.SetSysctls = true
		relay(t, lab, cfg, false)
		apply(t, lab.H2, cfg)
		for _, addr := range f.destinations(lab) {
			gateway := lab.H2.Iface(netlab.Right).Addr4
			if addr.Is6() {
				gateway = lab.H2.Iface(netlab.Right).Addr6
			}
			if answer := ask(t, lab, netip.AddrPortFrom(gateway, serverPort)); answer != "gateway" {
				t.Errorf("the gateway's own %v answers %q", gateway, answer)
			}
			excluded := cfg
			excluded.Exclude = []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen()), netip.PrefixFrom(addr, 16).Masked()}
			apply(t, lab.H2, excluded)
			if answer := ask(t, lab, netip.AddrPortFrom(addr, serverPort)); !strings.HasPrefix(answer, "direct") {
				t.Errorf("the excluded %v answers %q", addr, answer)
			}
			client := lab.H1.Addr4
			if addr.Is6() {
				client = lab.H1.Addr6
			}
			excluded.Exclude, excluded.ExcludeClients = nil, []netip.Prefix{netip.PrefixFrom(client, client.BitLen())}
			apply(t, lab.H2, excluded)
			if answer := ask(t, lab, netip.AddrPortFrom(addr, serverPort)); !strings.HasPrefix(answer, "direct") {
				t.Errorf("for an excluded client %v answers %q", addr, answer)
			}
			apply(t, lab.H2, cfg)
			if answer := ask(t, lab, netip.AddrPortFrom(addr, serverPort)); !strings.HasPrefix(answer, "relayed") {
				t.Errorf("no longer excluded, %v answers %q", addr, answer)
			}
		}
	})
}

func TestOnDown(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		lab := newLab(t)
		server(t, lab, serverPort)
		for _, policy := range []rules.OnDown{rules.OnDownDefault, rules.Open, rules.Closed} {
			cfg := f.config(t, mode, b)
			cfg.SetSysctls, cfg.OnDown = true, policy
			if err := cfg.Validate(); err != nil {
				if policy != rules.Open || (b.backend == rules.NFT && mode == tproxy.TPROXY) {
					t.Errorf("on down %q: %v", policy, err)
				}
				continue
			}
			open := cfg.WithDefaults().OnDown == rules.Open
			if open != (policy == rules.Open || (policy == "" && b.backend == rules.NFT && mode == tproxy.TPROXY)) {
				t.Errorf("on down %q means open: %v", policy, open)
			}
			apply(t, lab.H2, cfg)
			for _, addr := range f.destinations(lab) {
				patience := 10 * time.Second
				if !open && mode == tproxy.TPROXY {
					patience = 300 * time.Millisecond // nothing will come
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				c, err := lab.H1.Dial(ctx, "tcp", netip.AddrPortFrom(addr, serverPort).String())
				cancel()
				switch {
				case open && err != nil:
					t.Errorf("open: %v: %v", addr, err)
				case !open && err == nil:
					t.Errorf("closed: %v: connected", addr)
				case !open && mode == tproxy.Redirect && !errors.Is(err, unix.ECONNREFUSED):
					t.Errorf("closed: %v: %v, want refused", addr, err)
				case !open && mode == tproxy.TPROXY && errors.Is(err, unix.ECONNREFUSED):
					t.Errorf("closed: %v: %v, want nothing", addr, err)
				}
				if err == nil {
					c.Close()
				}
			}
			remove(t, lab.H2, cfg)
		}
	})
}

// The difference between rules that exempt SYNs from the socket match and those
// that do not: a client that comes again from the same port while the relay still
// has its last connection in TIME_WAIT.
func TestPortInTimeWaitIsTakenOverWithoutRetransmission(t *testing.T) {
	for _, b := range tools() {
		for _, f := range allFamilies(tproxy.TPROXY)[:2] {
			t.Run(b.name+"/"+f.name, func(t *testing.T) {
				b.use(t)
				lab := newLab(t)
				server(t, lab, serverPort)
				cfg := f.config(t, tproxy.TPROXY, b)
				relay(t, lab, cfg, true)
				apply(t, lab.H2, cfg)
				to := netip.AddrPortFrom(f.destinations(lab)[0], serverPort).String()
				local := netip.AddrPortFrom(lab.H1.Addr4, 40000).String()
				if f.v6 {
					local = netip.AddrPortFrom(lab.H1.Addr6, 40000).String()
				}
				for i := range 5 {
					c, err := lab.H1.DialFrom(t.Context(), "tcp", local, to)
					if err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
					// The relay closes first, so TIME_WAIT is on its side.
					answer, err := io.ReadAll(c)
					if err != nil || !strings.HasPrefix(string(answer), "relayed") {
						t.Errorf("connection %d: %q, %v", i, answer, err)
					}
					if n := retransmissions(t, c); n != 0 {
						t.Errorf("connection %d: %d retransmissions", i, n)
					}
					c.Close()
				}
			})
		}
	}
}

func retransmissions(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		n = info.Total_retrans
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOlderAndReverseConnectionsGoOn(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		lab := newLab(t)
		echo := func(h *netlab.Host, port int) {
			l, err := h.Listen("tcp", fmt.Sprintf("[::]:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			serve(t, l, func(c net.Conn) { io.Copy(c, c) })
		}
		// On the relay's own port number: its listener must not claim them.
		echo(lab.H3, relayPort)
		echo(lab.H1, relayPort)
		cfg := f.config(t, mode, b)
		cfg.SetSysctls = true
		for _, addr := range f.destinations(lab) {
			h1 := lab.H1.Addr4
			if addr.Is6() {
				h1 = lab.H1.Addr6
			}
			older, err := lab.H1.Dial(t.Context(), "tcp", netip.AddrPortFrom(addr, relayPort).String())
			if err != nil {
				t.Fatal(err)
			}
			relays := relay(t, lab, cfg, false)
			apply(t, lab.H2, cfg)
			exchange(t, "older", older)
			reverse, err := lab.H3.Dial(t.Context(), "tcp", netip.AddrPortFrom(h1, relayPort).String())
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, "reverse", reverse)
			older.Close()
			reverse.Close()
			remove(t, lab.H2, cfg)
			for _, l := range relays {
				l.Close()
			}
		}
	})
}

func exchange(t *testing.T, which string, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Errorf("%s connection: %v", which, err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Errorf("%s connection: %v", which, err)
	}
}
