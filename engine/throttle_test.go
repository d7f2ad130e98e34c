package engine_test

import (
	"io"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
)

// TestKeepsPausingIsThrottled: a receiver that is slow, not stopped, gets its sender
// throttled through the kernel's own buffers; when it is fast again, that is lifted, and
// every byte arrives.
func TestKeepsPausingIsThrottled(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		if err := server.SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		data := noise(96 << 20)
		sent := sendAll(client, data, true)

		got := make([]byte, 0, len(data))
		buf := make([]byte, 16<<10)
		for !r.only().Upstream.Throttled {
			n, err := server.Read(buf)
			if err != nil {
				t.Fatalf("never throttled: %v after %d bytes: %+v", err, len(got), r.Stats())
			}
			got = append(got, buf[:n]...)
			time.Sleep(10 * time.Millisecond) // the receiver is slow
		}
		rest, err := io.ReadAll(server)
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, rest...); sum(got) != sum(data) {
			t.Errorf("%d of %d bytes", len(got), len(data))
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// TestThrottleIsLifted: it goes when the pauses end, because little comes, or nothing.
func TestThrottleIsLifted(t *testing.T) {
	for name, last := range map[string]int{"little comes": 100, "nothing comes": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, engine.Options{})
			client, server := r.pair()
			if err := server.SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			data := noise(64 << 10)
			stop, stopped, alive := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() { // as fast as it goes, then now and then
				for running := true; running; {
					if _, err := client.Write(data); err != nil {
						return
					}
					select {
					case <-stop:
						running = false
					default:
					}
				}
				close(stopped)
				for {
					select {
					case <-alive:
						client.Write(data)
						return
					case <-time.After(20 * time.Millisecond):
						client.Write(data[:last])
					}
				}
			}()
			buf := make([]byte, 16<<10)
			for !r.only().Upstream.Throttled {
				if _, err := server.Read(buf); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond) // the receiver is slow
			}
			close(stop)
			go io.Copy(io.Discard, server)
			<-stopped
			r.until("lifted", func(engine.Stats) bool { return !r.only().Upstream.Throttled })
			before := r.Stats()
			close(alive)
			r.until("still alive", func(s engine.Stats) bool { return s.UpstreamSplice >= before.UpstreamSplice+uint64(len(data)) })
		})
	}
}
