package e2e

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// With the client's address and port, both legs are one connection to connection
// tracking, whose sequence numbers jump to and fro: it calls most of their packets
// invalid, and many firewalls drop those. This holds for two connections whose
// numbers are unlike, as those of two machines are; namespaces of one machine share
// the secret that the numbers come from.
func TestConnectionTrackingOfBothLegs(t *testing.T) {
	for name, c := range map[string]struct {
		spoof   tproxy.Spoof
		liberal string
		invalid bool
	}{
		"full":         {tproxy.SpoofFull, "0", true},
		"full-liberal": {tproxy.SpoofFull, "1", false},
		"ip":           {tproxy.SpoofIP, "0", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup{engine: engine.Options{Spoof: c.spoof}}
			eachWith(t, families(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
				g.nft(g.H2, `table inet firewall {
					chain input {
						type filter hook input priority filter;
						ct state invalid counter
					}
					chain output {
						type filter hook output priority filter;
						ct state invalid counter
					}
				}`)
				if err := g.H2.SetSysctl("net.netfilter.nf_conntrack_tcp_be_liberal", c.liberal); err != nil {
					t.Skip(err)
				}
				// The server's numbers are cookies, not made like those of the relay.
				g.setSysctl(g.H3, "net.ipv4.tcp_syncookies", "2")
				l := g.listen()
				for range 16 {
					client := g.dialNumbered(l.at, rand.Uint32())
					server := l.accept()
					exchange(t, client, server)
					client.Close()
					server.Close()
				}
				rules := g.shell(g.H2, "nft list table inet firewall")
				if invalid := strings.Count(rules, "counter packets 0 ") != 2; invalid != c.invalid {
					t.Errorf("invalid packets: %v, want %v:\n%s", invalid, c.invalid, rules)
				}
			})
		})
	}
}

// sendQueue is TCP_SEND_QUEUE of linux/tcp.h.
const sendQueue = 2

// dialNumbered is dial with an initial sequence number.
func (g *gateway) dialNumbered(to netip.AddrPort, isn uint32) *net.TCPConn {
	g.t.Helper()
	number := func(_, _ string, raw syscall.RawConn) (err error) {
		outside := raw.Control(func(fd uintptr) {
			for _, o := range []struct{ name, value int }{
				{unix.TCP_REPAIR, unix.TCP_REPAIR_ON}, {unix.TCP_REPAIR_QUEUE, sendQueue},
				{unix.TCP_QUEUE_SEQ, int(isn)}, {unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP},
			} {
				if err == nil {
					err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, o.name, o.value)
				}
			}
		})
		if err == nil {
			err = outside
		}
		return err
	}
	var c net.Conn
	err := g.H1.Do(func() (err error) {
		// A literal address is dialled on this thread.
		d := net.Dialer{Timeout: patience, Control: number}
		c, err = d.Dial("tcp", to.String())
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.keep(c)
}
