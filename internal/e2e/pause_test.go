package e2e

import (
	"bytes"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// counted counts what is read from it.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// still waits until what value gives has not changed for a while, and returns it.
func still[T comparable](t *testing.T, what string, value func() T) T {
	t.Helper()
	const looks = 30 // of 25 ms
	last, same := value(), 0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
		if now := value(); now != last {
			last, same = now, 0
		} else if same++; same == looks {
			return last
		}
	}
	t.Fatalf("%s never came to rest", what)
	return last
}

// TestReceiverThatStopsStopsTheSender: while the receiver does not read, the relay holds no more
// than the high watermark, and both the sender and the relay stand still.
func TestReceiverThatStopsStopsTheSender(t *testing.T) {
	const amount = 64 * mebibyte // more than all buffers on the way
	each(t, variants(tproxy.TPROXY)[:3], func(t *testing.T, g *gateway) {
		for _, way := range []string{"up", "down"} {
			l := g.listen()
			client, server := g.pair(l)
			sender, receiver := client, server
			if way == "down" {
				sender, receiver = server, client
			}
			source := &counted{Reader: stream(12, amount)}
			sent := send(sender, source, true)
			held := still(t, "the sender", source.n.Load)
			if held == amount {
				t.Fatalf("%s: all was taken though nobody read", way)
			}
			before := g.Stats()
			if before.Pending == 0 || before.Pending > engine.DefaultHighWatermark {
				t.Errorf("%s: %d bytes pending, want at most %d", way, before.Pending, engine.DefaultHighWatermark)
			}
			if before.Pauses == 0 {
				t.Errorf("%s: no pause", way)
			}
			// Nothing to do means nothing is done: a loop that is woken for bytes
			// which it may not read would spin here.
			time.Sleep(time.Second)
			after := g.Stats()
			const probes = 25 // of the window, each a packet and perhaps an event; and ticks of the wheel
			if n := after.Waits - before.Waits; n > probes {
				t.Errorf("%s: woken %d times while nothing moved", way, n)
			}
			if n := after.Splices - before.Splices; n > probes {
				t.Errorf("%s: %d splice calls while nothing moved", way, n)
			}
			if after.Pending != before.Pending || source.n.Load() != held {
				t.Errorf("%s: %d bytes pending, then %d; sender at %d, then at %d", way, before.Pending, after.Pending, held, source.n.Load())
			}
			t.Logf("%s: the sender stopped after %d KiB, %d KiB of them in the relay; %d waits in a second of rest",
				way, held>>10, before.Pending>>10, after.Waits-before.Waits)

			expect(t, way, receiver, 12, amount)
			if err := <-sent; err != nil {
				t.Fatalf("%s: %v", way, err)
			}
			sender.Close()
			receiver.Close()
			g.until("the end", func(s engine.Stats) bool { return s.Active == 0 })
		}
	})
}

// TestOtherWayGoesOnWhileOneIsStopped: each direction for itself.
func TestOtherWayGoesOnWhileOneIsStopped(t *testing.T) {
	const amount = 32 * mebibyte
	each(t, paths(tproxy.TPROXY), func(t *testing.T, g *gateway) {
		client, server := g.pair(g.listen())
		source := &counted{Reader: stream(13, amount)}
		sent := send(client, source, true)
		still(t, "the sender", source.n.Load)
		message := bytes.Repeat([]byte("on"), 512)
		for range 100 {
			if _, err := server.Write(message); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(message))
			if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("%v", err)
			}
		}
		expect(t, "server", server, 13, amount)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}
