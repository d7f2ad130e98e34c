package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

const (
	stalledPairs = 200
	// stalledMost is the most kernel memory of a pair whose reader has stopped, both sockets of
	// the relay together.
	stalledMost = 8 * mebibyte / 10
)

// The hosts have the kernel's usual limits, but for the ends: what they hold does not count here,
// and with the memory of all 800 sockets the kernel of a small machine would begin to save.
func usualBuffers(t *testing.T, lab *netlab.Lab) {
	t.Helper()
	for _, s := range []struct {
		host        *netlab.Host
		name, value string
	}{
		{lab.H1, "tcp_rmem", "4096 131072 1048576"},
		{lab.H2, "tcp_rmem", "4096 131072 6291456"},
		{lab.H2, "tcp_wmem", "4096 16384 4194304"},
		{lab.H3, "tcp_wmem", "4096 16384 524288"},
	} {
		if err := s.host.SetSysctl("net.ipv4."+s.name, s.value); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStalledReadersCostLittleKernelMemory: clients do not read, while servers send as much as they
// can. What the kernel then holds for the relay's sockets is little, Stats says how much it is, and
// when the clients read on they get every byte.
func TestStalledReadersCostLittleKernelMemory(t *testing.T) {
	each(t, paths(tproxy.TPROXY), func(t *testing.T, g *gateway) {
		usualBuffers(t, g.Lab)
		l := g.listen()
		readers := g.stall(l, l.at)
		held := g.relaySockets()
		t.Logf("%.2f MiB per pair", perPair(held))
		if held > stalledPairs*stalledMost {
			t.Errorf("the kernel holds %.2f MiB per pair, want at most %.2f", perPair(held), stalledMost/float64(mebibyte))
		}
		const apart = stalledPairs * mebibyte / 100
		g.until("what the kernel says, in Stats", func(s engine.Stats) bool {
			return s.KernelMemory > held-apart && s.KernelMemory < held+apart
		})
		readers.readOn()
		g.until("the end, with no memory", func(s engine.Stats) bool { return s.Active == 0 && s.KernelMemory == 0 })
	})
}

// TestStalledReadersCostNoMoreThanThroughHAProxy: on the same hosts, one after the other.
func TestStalledReadersCostNoMoreThanThroughHAProxy(t *testing.T) {
	each(t, paths(tproxy.TPROXY)[:1], func(t *testing.T, g *gateway) {
		usualBuffers(t, g.Lab)
		l := g.listen()
		readers := g.stall(l, l.at)
		ours := g.relaySockets()
		readers.readOn()
		g.until("the end", func(s engine.Stats) bool { return s.Active == 0 })

		l = g.listen()
		readers = g.stall(l, g.haproxy(l.at))
		theirs := g.relaySockets()
		readers.readOn()
		t.Logf("kernel memory per pair: tprelay %.2f MiB, HAProxy %.2f MiB", perPair(ours), perPair(theirs))
		if ours > theirs {
			t.Error("tprelay's is more")
		}
	})
}

// TestFarServersHaveNoCeiling: where a round trip takes much, the window that the relay offers
// grows as the kernel's own tuning has it.
func TestFarServersHaveNoCeiling(t *testing.T) {
	lab := netlab.Config{Bottleneck: netlab.Link{Delay: 20 * time.Millisecond}}
	eachWith(t, paths(tproxy.TPROXY)[:1], setup{lab: lab}, func(t *testing.T, g *gateway) {
		usualBuffers(t, g.Lab)
		if err := g.H3.SetSysctl("net.ipv4.tcp_wmem", "4096 16384 4194304"); err != nil {
			t.Fatal(err)
		}
		l := g.listen()
		client, server := g.pair(l)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			io.Copy(io.Discard, onlyReader{client})
		}()
		data := make([]byte, 64<<10)
		var most uint32
		const want = 2 * mebibyte
		for end := time.Now().Add(patience); most < want && time.Now().Before(end); most = max(most, offered(t, server)) {
			if _, err := server.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		if most < want {
			t.Errorf("the server was never offered more than %d bytes", most)
		}
		server.Close()
		client.Close()
		<-stopped
		// While there are rules: without them no acknowledgement finds the relay's sockets.
		g.until("the end", func(s engine.Stats) bool { return s.Active == 0 })
	})
}

// readers are clients that do not read yet.
type readers struct {
	g       *gateway
	clients []*net.TCPConn
	content []byte
}

// stalledAmount is how many mebibytes each server sends.
const stalledAmount = 8

// stall has clients connect to at, and returns when the servers behind l cannot send any more.
func (g *gateway) stall(l *listener, at netip.AddrPort) *readers {
	g.t.Helper()
	r := &readers{g: g, content: make([]byte, mebibyte)}
	io.ReadFull(stream(7, mebibyte), r.content)
	var sent atomic.Int64
	l.serve(func(c *net.TCPConn) {
		for range stalledAmount {
			for piece := range slices.Chunk(r.content, 32<<10) {
				if n, err := c.Write(piece); err != nil {
					g.t.Errorf("server, after %d bytes: %v", n, err)
					return
				}
				sent.Add(int64(len(piece)))
			}
		}
	})
	for range stalledPairs {
		r.clients = append(r.clients, g.dial(at))
	}
	if n := still(g.t, "the servers", sent.Load); n == stalledPairs*stalledAmount*mebibyte {
		g.t.Fatal("all was sent, though nobody read")
	}
	return r
}

// readOn reads to the end, and compares.
func (r *readers) readOn() {
	r.each(func(c *net.TCPConn) error {
		defer c.Close()
		if err := r.expect(c); err != nil {
			return err
		}
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("%d bytes, %v; want the end", n, err)
		}
		return nil
	})
}

func (r *readers) expect(c *net.TCPConn) error {
	got := make([]byte, mebibyte)
	for i := range stalledAmount {
		if n, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("after %d MiB and %d bytes: %w", i, n, err)
		}
		if !bytes.Equal(got, r.content) {
			return fmt.Errorf("other bytes than were sent, after %d MiB", i)
		}
	}
	return nil
}

// each runs f for all clients at once.
func (r *readers) each(f func(*net.TCPConn) error) {
	r.g.t.Helper()
	failed := make(chan error, len(r.clients))
	for _, c := range r.clients {
		go func() { failed <- f(c) }()
	}
	for range r.clients {
		if err := <-failed; err != nil {
			r.g.t.Error(err)
		}
	}
}

var memoryOfSocket = regexp.MustCompile(`skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)`)

// relaySockets is what the kernel holds for the connections of h2, as ss tells.
func (g *gateway) relaySockets() (held int64) {
	g.t.Helper()
	out, err := g.H2.Command(within(g.t), "ss", "-tmnH", "state", "established").Output()
	if err != nil {
		g.t.Fatal(err)
	}
	all := memoryOfSocket.FindAllSubmatch(out, -1)
	if len(all) != 2*stalledPairs {
		g.t.Errorf("the relay has %d connections, want %d", len(all), 2*stalledPairs)
	}
	for _, one := range all {
		for _, figure := range one[1:] {
			n, err := strconv.ParseUint(string(figure), 10, 32)
			if err != nil {
				g.t.Fatal(err)
			}
			held += int64(int32(n)) // what is reserved can be less than nothing
		}
	}
	return held
}

func perPair(held int64) float64 { return float64(held) / stalledPairs / mebibyte }

// haproxy starts HAProxy on h2, and returns where it takes connections for that server.
func (g *gateway) haproxy(server netip.AddrPort) netip.AddrPort {
	g.t.Helper()
	at := netip.AddrPortFrom(g.H2.Addr4, relayPort+1)
	config := filepath.Join(g.t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
    maxconn 1000
    maxpipes 500
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option splice-request
    option splice-response
listen relay
    bind %v
    server origin %v
`, at, server)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
	c := g.H2.Command(within(g.t), "haproxy", "-db", "-f", config)
	started(g.t, c.Start())
	g.t.Cleanup(c.Stop)
	if err := g.H2.WaitListen(within(g.t), at.Port()); err != nil {
		g.t.Fatal(err)
	}
	return at
}
