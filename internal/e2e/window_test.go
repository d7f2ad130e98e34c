package e2e

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// TestNoWindowCollapses is gattaca-com/flux pull request 67: with more active connections
// than fit into the event array, those that were served late had their receive windows
// tuned down to 14 KB, and stayed there. 1,200 streams, where a wait brings 1,024 events:
// all begin before any goes on, all bytes arrive, and a window that became small opens
// again as its stream goes on.
func TestNoWindowCollapses(t *testing.T) {
	const (
		streams = 1200
		each    = 512 << 10
		// window is twice that of the collapse.
		window = 28 << 10
	)
	eachWith(t, paths(tproxy.TPROXY), setup{engine: engine.Options{Loops: 1}}, func(t *testing.T, g *gateway) {
		l := g.listen()
		var total atomic.Int64
		l.serve(func(c *net.TCPConn) {
			buf := make([]byte, 16<<10)
			for {
				n, err := c.Read(buf)
				total.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		conns := make([]*net.TCPConn, streams)
		for i := range conns {
			conns[i] = g.dial(l.at)
		}
		before := g.until("all pairs", func(s engine.Stats) bool { return s.Opened == streams })
		data := make([]byte, 32<<10)
		for _, c := range conns {
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		g.until("all to begin", func(engine.Stats) bool { return total.Load() == streams*int64(len(data)) })
		var senders sync.WaitGroup
		var failed atomic.Pointer[error]
		for _, c := range conns {
			senders.Go(func() {
				for range each/len(data) - 1 {
					if _, err := c.Write(data); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		senders.Wait()
		if err := failed.Load(); err != nil {
			t.Fatal(*err)
		}
		g.until("all bytes", func(engine.Stats) bool { return total.Load() == streams*each })

		s := g.Stats()
		t.Logf("%d events in %d waits", s.Events-before.Events, s.Waits-before.Waits)

		var windows []uint32
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			windows = windows[:0]
			for _, c := range conns {
				w := offered(t, c)
				windows = append(windows, w)
				if w < window { // the kernel opens it as bytes come
					if _, err := c.Write(data); err != nil {
						t.Fatal(err)
					}
				}
			}
			slices.Sort(windows)
			if windows[0] >= window {
				break
			}
		}
		t.Logf("%d KiB later, windows: least %d, median %d", (total.Load()-streams*each)>>10, windows[0], windows[streams/2])
		if windows[0] < window {
			t.Errorf("a window has collapsed to %d bytes", windows[0])
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

// offered is the window that the other end offers, as c's end knows it.
func offered(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if outside := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); outside != nil {
		err = outside
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.Snd_wnd
}
