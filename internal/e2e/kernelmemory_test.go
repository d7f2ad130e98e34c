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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

const stalledPairs = 200

// stops are when the readers stop, and the most kernel memory of a pair then, both sockets of the
// relay together. A reader that has taken much was fast, and its direction needed larger buffers.
var stops = []struct {
	after int // MiB
	most  float64
}{{0, 0.8}, {1, 1}, {16, 2}}

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

// TestStalledReadersCostLittleKernelMemory: clients stop reading, from the beginning or after some
// MiB, while servers send as much as they can. What the kernel then holds for the relay's sockets
// is little, Stats says how much it is, and when the clients read on they get every byte.
func TestStalledReadersCostLittleKernelMemory(t *testing.T) {
	each(t, paths(tproxy.TPROXY), func(t *testing.T, g *gateway) {
		usualBuffers(t, g.Lab)
		for _, stop := range stops {
			l := g.listen()
			readers := g.stall(l, l.at, stop.after)
			held := g.relaySockets()
			t.Logf("after %d MiB: %.2f MiB per pair", stop.after, perPair(held))
			if perPair(held) > stop.most {
				t.Errorf("after %d MiB the kernel holds %.2f MiB per pair, want at most %.2f", stop.after, perPair(held), stop.most)
			}
			const apart = stalledPairs * mebibyte / 100
			g.until("what the kernel says, in Stats", func(s engine.Stats) bool {
				return s.KernelMemory > held-apart && s.KernelMemory < held+apart
			})
			readers.readOn()
			g.until("the end, with no memory", func(s engine.Stats) bool { return s.Active == 0 && s.KernelMemory == 0 })
		}
	})
}

// TestStalledReadersCostNoMoreThanThroughHAProxy: on the same hosts, one after the other.
func TestStalledReadersCostNoMoreThanThroughHAProxy(t *testing.T) {
	each(t, paths(tproxy.TPROXY)[:1], func(t *testing.T, g *gateway) {
		usualBuffers(t, g.Lab)
		l := g.listen()
		proxied := g.haproxy(l.at)
		for _, stop := range stops {
			readers := g.stall(l, l.at, stop.after)
			ours := g.relaySockets()
			readers.readOn()
			g.until("the end", func(s engine.Stats) bool { return s.Active == 0 })

			readers = g.stall(l, proxied, stop.after)
			theirs := g.relaySockets()
			readers.leave() // with so much memory in use the kernel may let HAProxy wait for minutes
			t.Logf("kernel memory per pair, stopped after %d MiB: tprelay %.2f MiB, HAProxy %.2f MiB", stop.after, perPair(ours), perPair(theirs))
			if ours > theirs {
				t.Errorf("tprelay's is more after %d MiB", stop.after)
			}
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

// readers are clients that have stopped reading.
type readers struct {
	g       *gateway
	clients []*net.TCPConn
	content []byte
	after   int // MiB that they have read
	left    atomic.Bool
	servers sync.WaitGroup
}

// stalledAmount is how many MiB each server sends beyond those that are read.
const stalledAmount = 12

// stall has clients connect to at and read some MiB, all at once, and returns when the servers
// behind l cannot send any more.
func (g *gateway) stall(l *listener, at netip.AddrPort, after int) *readers {
	g.t.Helper()
	r := &readers{g: g, content: make([]byte, mebibyte), after: after}
	io.ReadFull(stream(7, mebibyte), r.content)
	var sent atomic.Int64
	served := make(chan bool)
	go func() { // l has a place for those of the next call
		defer close(served)
		for range stalledPairs {
			c, err := l.Accept()
			if err != nil {
				g.t.Errorf("accept: %v", err)
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			r.servers.Go(func() {
				defer c.Close()
				for range after + stalledAmount {
					for piece := range slices.Chunk(r.content, 32<<10) {
						if n, err := c.Write(piece); err != nil {
							if !r.left.Load() {
								g.t.Errorf("server, after %d bytes: %v", n, err)
							}
							return
						}
						sent.Add(int64(len(piece)))
					}
				}
			})
		}
	}()
	for range stalledPairs {
		r.clients = append(r.clients, g.dial(at))
	}
	<-served
	r.each(func(c *net.TCPConn) error { return r.expect(c, after) })
	if n := still(g.t, "the servers", sent.Load); n == stalledPairs*int64(after+stalledAmount)*mebibyte {
		g.t.Fatal("all was sent, though nobody read")
	}
	return r
}

// readOn reads to the end, and compares.
func (r *readers) readOn() {
	r.each(func(c *net.TCPConn) error {
		defer c.Close()
		if err := r.expect(c, stalledAmount); err != nil {
			return err
		}
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("%d bytes, %v; want the end", n, err)
		}
		return nil
	})
}

// leave closes the connections, with bytes still on their way.
func (r *readers) leave() {
	r.left.Store(true)
	r.each(func(c *net.TCPConn) error { return c.Close() })
	r.servers.Wait()
}

// expect reads that many MiB.
func (r *readers) expect(c *net.TCPConn, amount int) error {
	got := make([]byte, 64<<10)
	for i := range amount * mebibyte / len(got) {
		at := i * len(got) % mebibyte
		if n, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("after %d KiB and %d bytes: %w", i*len(got)>>10, n, err)
		}
		if !bytes.Equal(got, r.content[at:at+len(got)]) {
			return fmt.Errorf("other bytes than were sent, after %d KiB", i*len(got)>>10)
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
