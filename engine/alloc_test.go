package engine_test

import (
	"io"
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// TestSteadyStateDoesNotAllocate counts what the process allocates while pairs move
// bytes, and while they come and go. The test's own ends use bare sockets, so that
// what is counted is the relay's.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		o.Loops = 1
		r := newRig(t, o)
		c, s := r.pair()
		client, server := blocking(t, c), blocking(t, s)
		defer unix.Close(client)
		defer unix.Close(server)
		small, big, got := noise(100), noise(100_000), make([]byte, 100_000)
		there := func(from, to int, message []byte) {
			for sent, had := 0, 0; had < len(message); {
				if sent < len(message) {
					n, err := unix.Write(from, message[sent:min(sent+30_000, len(message))])
					if err != nil {
						t.Fatal(err)
					}
					sent += n
				}
				n, err := unix.Read(to, got[:sent-had])
				if err != nil || n == 0 {
					t.Fatal(n, err)
				}
				had += n
			}
		}
		messages := func() {
			for range 100 {
				there(client, server, small)
				there(server, client, small)
			}
			there(client, server, big)
			there(server, client, big)
		}
		if n := mallocs(messages); n > 20 {
			t.Errorf("%d allocations in 202 messages", n)
		}
		churn := func() {
			for range 100 {
				a, b := r.rawPair(t)
				there(a, b, small)
				there(b, a, small)
				unix.Close(a)
				unix.Close(b)
			}
		}
		// Handlers come with a Decision and a record in the side table, which is reused.
		if n := mallocs(churn); n > 20 {
			t.Errorf("%d allocations in 100 pairs", n)
		}
	})
}

// mallocs is the least that several runs of f allocate: what comes by the way, from
// timers or the collector, does not come every time.
func mallocs(f func()) uint64 {
	f()
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	return least
}

// blocking is a descriptor of c that blocks.
func blocking(t *testing.T, c *net.TCPConn) int {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// rawPair is a pair whose ends are bare descriptors.
func (r *rig) rawPair(t *testing.T) (client, server int) {
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r.raw == 0 {
		f, err := r.server.File()
		if err != nil {
			t.Fatal(err)
		}
		r.raw = int(f.Fd()) // File made it blocking
		t.Cleanup(func() { f.Close() })
		addr := r.Addrs()[0]
		r.to = unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	if err := unix.Connect(client, &r.to); err != nil {
		t.Fatal(err)
	}
	server, _, err = tproxy.Accept(r.raw)
	if err == nil {
		err = unix.SetNonblock(server, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// BenchmarkRoundTrip is one byte to and fro through the relay, on each path, and
// without a relay.
func BenchmarkRoundTrip(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, struct{ io.Reader }{c}); c.Close() }()
		}
	}()
	b.Run("direct", func(b *testing.B) { pingPong(b, ln.Addr().String()) })
	for name, o := range map[string]engine.Options{"splice": {}, "buffer": {NoSplice: true}} {
		b.Run(name, func(b *testing.B) {
			e, done := benchRelay(b, o, ln.Addr().String())
			defer done()
			pingPong(b, e.Addrs()[0].String())
		})
	}
}

func pingPong(b *testing.B, addr string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	one := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatal(err)
		}
	}
}
