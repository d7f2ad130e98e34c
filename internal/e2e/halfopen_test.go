package e2e

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// deafRules have h1 not hear the answers to what comes from these ports, so that its
// SYNs are all that the relay's host ever gets.
const deafRules = `table inet deaf {
	chain input {
		type filter hook input priority filter;
		tcp dport 50000-59999 drop
	}
}`

// hearingPorts are the ports of all other clients.
const hearingPorts = "20000 49999"

// TestHalfOpenFlood: 1,500 SYNs without an ACK. The relay never hears of them; connections go on,
// and new clients get in. When the SYNs are more than the backlog holds, the kernel answers with
// cookies and forgets them. The ACK that ends a handshake then belongs to no socket, and our TPROXY
// rules, which divert SYNs and packets that have a socket, let it pass to the server, which resets
// it. So new clients do not get in there: the backlog must be large.
func TestHalfOpenFlood(t *testing.T) {
	const flood, newcomers = 1500, 20
	all := append(families(tproxy.TPROXY), families(tproxy.Redirect)...)
	for name, backlog := range map[string]int{"within backlog": 0, "beyond backlog": 256} {
		t.Run(name, func(t *testing.T) {
			eachWith(t, all, setup{engine: engine.Options{Backlog: backlog}}, func(t *testing.T, g *gateway) {
				g.nft(g.H1, deafRules)
				g.setSysctl(g.H1, "net.ipv4.ip_local_port_range", hearingPorts)
				g.setSysctl(g.H2, "net.ipv4.tcp_syncookies", "1") // the default
				l := g.listen()
				l.serve(echo)
				interactive := g.dial(l.at)
				talk := func() {
					t.Helper()
					pingPong(t, interactive, &histogram{}, 20, 0, []byte("still there?"))
				}
				talk()
				for i := range uint16(flood) {
					fd := g.knockAndRun(50000+i, l.at)
					defer unix.Close(fd)
					if i%300 == 0 {
						talk()
					}
				}
				talk()
				cookies := g.tcpCounter(g.H2, "TCPReqQFullDoCookies")
				if (cookies > 0) != (backlog > 0) {
					t.Errorf("%d cookies with a backlog of %d: this test proves nothing", cookies, backlog)
				}
				come := 1
				if backlog == 0 || g.mode == tproxy.Redirect {
					for range newcomers {
						c := g.dial(l.at)
						pingPong(t, c, &histogram{}, 1, 0, []byte("let me in"))
						c.Close()
					}
					come += newcomers
				}
				talk()
				interactive.Close()
				g.endedPairs(come)
				if s := g.Stats(); s.Accepted != uint64(come) || s.Ended[engine.ReasonEOF] != uint64(come) {
					t.Errorf("%d came: accepted %d, ended %v", come, s.Accepted, s.Ended)
				}
			})
		})
	}
}

// knockAndRun sends a SYN from a port of h1.
func (g *gateway) knockAndRun(from uint16, to netip.AddrPort) (fd int) {
	g.t.Helper()
	family, local, remote := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(from)}), unix.Sockaddr(nil)
	if g.v6 {
		family, local = unix.AF_INET6, &unix.SockaddrInet6{Port: int(from)}
		remote = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		remote = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	err := g.H1.Do(func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err = unix.Bind(fd, local); err == nil {
			if err = unix.Connect(fd, remote); err == unix.EINPROGRESS {
				return nil
			}
		}
		unix.Close(fd)
		return err
	})
	if err != nil {
		g.t.Fatalf("from port %d: %v", from, err)
	}
	return fd
}
