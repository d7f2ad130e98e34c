package engine_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
)

// TestPausesAboveHighWatermark: a receiver that stops reading stops the sender, and
// reading starts again.
func TestPausesAboveHighWatermark(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		for _, high := range []int{8 << 10, 256 << 10} {
			t.Run(fmt.Sprint(high), func(t *testing.T) {
				o.HighWatermark = high
				r := newRig(t, o)
				client, server := r.pair()
				data := noise(24 << 20)
				sent := sendAll(client, data, true)
				s := full(r)
				if s.Pauses == 0 || !r.only().Upstream.Paused {
					t.Errorf("not paused: %+v", r.only())
				}
				if s.Pending > int64(high) || s.Pending == 0 {
					t.Errorf("%d bytes pending, high watermark %d", s.Pending, high)
				}
				if p := r.only().Upstream.Pending; int64(p) != s.Pending {
					t.Errorf("%d bytes pending in the pair, %d in all", p, s.Pending)
				}
				select {
				case err := <-sent:
					t.Fatalf("the sender was not stopped: %v", err)
				default:
				}
				expect(t, "server", server, data)
				if err := <-sent; err != nil {
					t.Error(err)
				}
				if i := r.only(); i.Upstream.Pauses == 0 {
					t.Errorf("%+v", i)
				}
			})
		}
	})
}

// full waits until the relay reads no more, because the receiver does not: forty looks in a row,
// 5 ms apart, find that nothing has moved.
func full(r *rig) engine.Stats {
	r.t.Helper()
	var last engine.Stats
	same := 0
	return r.until("the relay is full", func(s engine.Stats) bool {
		if same++; s.Pauses == 0 || s.Pending != last.Pending || s.UpstreamSplice != last.UpstreamSplice || s.UpstreamBuffer != last.UpstreamBuffer {
			same = 0
		}
		last = s
		return same == 40
	})
}

// stopped waits until the relay does nothing any more.
func stopped(t *testing.T, r *rig) engine.Stats {
	t.Helper()
	var last engine.Stats
	return r.until("standstill", func(s engine.Stats) bool {
		still := s.Pauses > 0 && s.Events == last.Events && s.Waits == last.Waits
		last = s
		if still {
			time.Sleep(500 * time.Millisecond) // it stands still for several ticks: a loaded machine may be late with one
			last = r.Stats()
			still = last.Waits == s.Waits
		}
		return still
	})
}

// TestStoppedReceiverCostsNothing: while nothing can move, the loops sleep.
func TestStoppedReceiverCostsNothing(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		sent := sendAll(client, noise(64<<20), false)
		before := stopped(t, r)
		switches := contextSwitches(t)
		time.Sleep(300 * time.Millisecond) // the receiver stands still
		after := r.Stats()
		// The sender's kernel probes the closed window, which may bring an event.
		if after.Waits > before.Waits+3 || after.Events > before.Events+3 || after.Splices > before.Splices+3 {
			t.Errorf("the relay was busy: %+v\nthen %+v", before, after)
		}
		// The test itself and Go's own threads switch now and then; a loop
		// that spins or polls would do so a thousand times.
		if n := contextSwitches(t) - switches; n > 600 {
			t.Errorf("%d context switches in 0.3 s", n)
		}
		go io.Copy(io.Discard, server)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// contextSwitches sums those of all threads of this process.
func contextSwitches(t *testing.T) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/status") // may have ended
		for _, line := range strings.Split(string(status), "\n") {
			var k int
			if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &k); err == nil {
				n += k
			}
			if _, err := fmt.Sscanf(line, "nonvoluntary_ctxt_switches: %d", &k); err == nil {
				n += k
			}
		}
	}
	return n
}

// TestWithoutFlowControlMemoryGrows shows what the watermarks are for, and that the
// memory limit holds without them.
func TestWithoutFlowControlMemoryGrows(t *testing.T) {
	r := newRig(t, engine.Options{NoFlowControl: true, MemoryLimit: 8 << 20})
	client, server := r.pair()
	data := noise(64 << 20)
	sent := sendAll(client, data, true)
	s := r.until("swollen", func(s engine.Stats) bool { return s.Pending > engine.DefaultHighWatermark*4 && s.Starved > 0 })
	if s.Memory > 9<<20 {
		t.Errorf("%d bytes of memory, limit 8 MiB", s.Memory)
	}
	expect(t, "server", server, data)
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestMemoryLimitPausesTheLargestFirst: stalled pairs use up the budget, and a small
// one still gets through.
func TestMemoryLimitPausesTheLargestFirst(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		o.MemoryLimit = 1 << 20
		r := newRig(t, o)
		for range 12 {
			client, _ := r.pair()
			sendAll(client, noise(16<<20), false)
		}
		s := r.until("full", func(s engine.Stats) bool { return s.Pauses+s.Starved >= 12 })
		if s.Memory > 2<<20 {
			t.Errorf("%d bytes of memory, limit 1 MiB", s.Memory)
		}
		client, server := r.pair()
		for range 100 {
			exchange(t, client, server, noise(100))
			exchange(t, server, client, noise(100))
		}
	})
}

func TestTurnsAreShared(t *testing.T) {
	r := newRig(t, engine.Options{Loops: 1})
	for range 2 {
		client, server := r.pair()
		go io.Copy(io.Discard, server)
		go func() {
			for data := noise(1 << 20); ; {
				if _, err := client.Write(data); err != nil {
					return
				}
			}
		}()
	}
	client, server := r.pair()
	for range 200 {
		exchange(t, client, server, noise(10))
		exchange(t, server, client, noise(10))
	}
}
