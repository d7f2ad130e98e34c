package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// Ports of programs on h3.
const (
	httpPort   = 8080
	iperf3Port = 5201
	sshPort    = 22
)

// started fails the test for err, and skips it for a program that cannot be had.
func started(t *testing.T, err error) {
	t.Helper()
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, netlab.ErrNotRoot):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// url is the server on h3.
func (g *gateway) url(path string) string {
	return "http://" + net.JoinHostPort(g.server().String(), strconv.Itoa(httpPort)) + path
}

func TestServerSeesTheClientsAddressAndPort(t *testing.T) {
	each(t, append(variants(tproxy.TPROXY), families(tproxy.Redirect)...), func(t *testing.T, g *gateway) {
		nginx, err := g.H3.Nginx(within(t), httpPort, "")
		started(t, err)
		if err := os.WriteFile(filepath.Join(nginx.Root, "page"), []byte("hello\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		const requests = 3
		var clients []netip.AddrPort
		for range requests {
			var page strings.Builder
			r, err := g.H1.Curl(within(t), g.url("/page"), &page)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != 200 || page.String() != "hello\n" {
				t.Errorf("%+v, %q", r, &page)
			}
			clients = append(clients, r.Local)
		}
		for i, p := range g.endedPairs(requests) {
			if p.Client != clients[i] || p.Destination != netip.AddrPortFrom(g.server(), httpPort) || p.Connected != p.Destination {
				t.Errorf("client %v: %+v", clients[i], p)
			}
		}
		log, err := nginx.AccessLog()
		if err != nil || len(log) != requests {
			t.Fatalf("%d requests logged, %v", len(log), err)
		}
		for i, a := range log {
			want := clients[i]
			if g.mode == tproxy.Redirect { // spoofs only when asked to
				own := g.H2.Iface(netlab.Right)
				want = netip.AddrPortFrom(own.Addr4, a.Client.Port())
				if g.v6 {
					want = netip.AddrPortFrom(own.Addr6, a.Client.Port())
				}
			}
			if a.Client != want || a.Server.Addr() != g.server() {
				t.Errorf("nginx saw %v come to %v, want %v to %v", a.Client, a.Server, want, g.server())
			}
			t.Logf("%v came as %v", clients[i], a.Client)
		}
	})
}

func TestRedirectSpoofsTheClientsAddressWhenAskedTo(t *testing.T) {
	s := setup{
		engine: engine.Options{Spoof: tproxy.SpoofIP},
		rules:  func(c *rules.Config) { c.Transparent = true },
	}
	eachWith(t, families(tproxy.Redirect), s, func(t *testing.T, g *gateway) {
		l := g.listen()
		client, server := g.pair(l)
		if remote(server).Addr() != local(client).Addr() {
			t.Errorf("%v came as %v", local(client), remote(server))
		}
		sent := send(client, stream(6, mebibyte), true)
		expect(t, "server", server, 6, mebibyte)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		sent = send(server, stream(7, mebibyte), true)
		expect(t, "client", client, 7, mebibyte)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if s := g.Stats(); s.SpoofLevels[tproxy.LevelIP] != 1 {
			t.Errorf("levels: %v", s.SpoofLevels)
		}
	})
}

// iperf3 runs a client in h1 against a server of its own in h3.
func iperf3(t *testing.T, lab *netlab.Lab, o netlab.Iperf3Options) (*netlab.Iperf3Result, error) {
	t.Helper()
	server, err := lab.H3.Iperf3Server(within(t), iperf3Port)
	started(t, err)
	r, err := lab.H1.Iperf3(within(t), o)
	if err != nil {
		server.Stop()
		return nil, err
	}
	return r, server.Wait()
}

// TestIperf3 uses one loop, because of --bidir: iperf3 tells its two streams apart by
// the order in which the server accepts them, and deadlocks when that is not the order
// in which the client connected. A client's connect returns when the relay has it, so
// with several loops two connections may overtake each other on their way out.
func TestIperf3(t *testing.T) {
	all := append(variants(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, setup{engine: engine.Options{Loops: 1}}, func(t *testing.T, g *gateway) {
		const amount = 256 * mebibyte
		// iperf3 ends with the sender: what sockets and pipes still hold then is thrown away.
		// That is kept to this much per stream: four socket buffers and a pipe. The throttle must
		// not make a receive buffer larger.
		const buffer, held = 2 * mebibyte, (4*2 + 1) * mebibyte
		for _, h := range []*netlab.Host{g.H1, g.H2, g.H3} {
			for _, name := range []string{"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"} {
				g.setSysctl(h, name, fmt.Sprintf("4096 131072 %d", buffer))
			}
		}
		for _, run := range []struct {
			name string
			o    netlab.Iperf3Options
		}{
			{"forward", netlab.Iperf3Options{}},
			{"reverse", netlab.Iperf3Options{Reverse: true}},
			{"eight", netlab.Iperf3Options{Streams: 8}},
			{"both", netlab.Iperf3Options{Args: []string{"--bidir"}}},
		} {
			before := g.Stats()
			run.o.Server, run.o.Bytes = netip.AddrPortFrom(g.server(), iperf3Port), amount
			r, err := iperf3(t, g.Lab, run.o)
			if err != nil {
				t.Fatalf("%s: %v", run.name, err)
			}
			s := g.until("the end of the pairs", func(s engine.Stats) bool { return s.Active == 0 })
			up := s.UpstreamSplice + s.UpstreamBuffer - before.UpstreamSplice - before.UpstreamBuffer
			down := s.DownstreamSplice + s.DownstreamBuffer - before.DownstreamSplice - before.DownstreamBuffer
			t.Logf("%-8s %6.0f Mbit/s, %3d MiB up, %3d MiB down, %d pairs", run.name, r.Receiver/1e6, up>>20, down>>20, s.Opened-before.Opened)
			least := amount - uint64(max(run.o.Streams, 1))*held
			if run.name == "both" { // of two ways the slower is cut short, wherever it is
				least = mebibyte
				if up < least || down < least {
					t.Errorf("%s: %d bytes up, %d down", run.name, up, down)
				}
			}
			if r.ReceiverBytes < least || up+down < r.ReceiverBytes {
				t.Errorf("%s: %d bytes sent, %d received, %d relayed", run.name, r.SenderBytes, r.ReceiverBytes, up+down)
			}
		}
		g.onOnePath()
	})
}

// onOnePath fails the test if bytes went another way than the variant's.
func (g *gateway) onOnePath() {
	g.t.Helper()
	s := g.Stats()
	spliced, buffered := s.UpstreamSplice+s.DownstreamSplice, s.UpstreamBuffer+s.DownstreamBuffer
	if g.noSplice && spliced > 0 || !g.noSplice && buffered > 0 {
		g.t.Errorf("%d bytes spliced, %d through buffers", spliced, buffered)
	}
}

func TestSSHAndSCP(t *testing.T) {
	s := setup{rules: func(c *rules.Config) { c.NoSSHExclusion = true }}
	all := append(variants(tproxy.TPROXY), families(tproxy.Redirect)...)
	eachWith(t, all, s, func(t *testing.T, g *gateway) {
		sshd, err := g.H3.SSHD(within(t), sshPort)
		started(t, err)
		out, err := sshd.SSH(within(t), g.H1, g.server(), "echo $SSH_CONNECTION").Output()
		if err != nil {
			t.Fatal(err)
		}
		p := g.endedPairs(1)[0]
		session := fmt.Sprintf("%v %d %v %d\n", p.Client.Addr(), p.Client.Port(), g.server(), sshPort)
		if g.mode == tproxy.TPROXY && string(out) != session {
			t.Errorf("logged in as %q, want %q", out, session)
		}

		dir := t.TempDir()
		there, back, again := filepath.Join(dir, "there"), filepath.Join(dir, "back"), filepath.Join(dir, "again")
		want := writeStream(t, there, 8, 16*mebibyte)
		host := "root@" + g.server().String()
		if g.v6 {
			host = "root@[" + g.server().String() + "]"
		}
		scp(t, sshd, g, there, host+":"+back)
		scp(t, sshd, g, host+":"+back, again)
		for _, file := range []string{back, again} {
			if got := readDigest(t, file); got != want {
				t.Errorf("%s: %v, want %v", file, got, want)
			}
		}
	})
}

// scp copies a file with the keys of the lab's ssh client.
func scp(t *testing.T, sshd *netlab.SSHD, g *gateway, from, to string) {
	t.Helper()
	args := sshd.SSH(within(t), g.H1, g.server(), "").Args
	args = append([]string(nil), args[:len(args)-2]...) // without whom to visit, and what to do there
	args[0] = "scp"
	for i, a := range args {
		if a == "-p" { // scp says -P for the port
			args[i] = "-P"
		}
	}
	args = append(args, from, to)
	start := time.Now()
	if err := g.H1.Command(within(t), args[0], args[1:]...).Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("scp took %v", time.Since(start).Round(time.Millisecond))
}
