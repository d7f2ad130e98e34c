package engine_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/tprelay/tprelay/engine"
)

// flood sends at full speed until the direction is moderated. The server has read all of
// it when it returns.
func flood(t *testing.T, r *rig, client, server *net.TCPConn) {
	t.Helper()
	var stop atomic.Bool
	total := make(chan int64, 1)
	go func() {
		data, n := noise(256<<10), int64(0)
		for last := false; !last; {
			last = stop.Load()
			if n += int64(len(data)); last {
				total <- n // before the last are written: the reader must not wait for more
			}
			if _, err := client.Write(data); err != nil {
				return
			}
		}
	}()
	read, buf := int64(0), make([]byte, 256<<10)
	before := r.Stats().Moderations
	defer stop.Store(true)
	for all := int64(-1); read != all; {
		n, err := server.Read(buf)
		if read += int64(n); err != nil {
			t.Fatalf("%v after %d bytes: %+v", err, read, r.Stats())
		}
		if r.Stats().Moderations > before {
			stop.Store(true)
		}
		select {
		case all = <-total:
		default:
		}
	}
}

// TestModeratedBytesAreNotHeldBack: what comes after the bulk, be it one byte, is passed
// on although its source was to wake the loop for a lot only.
func TestModeratedBytesAreNotHeldBack(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		for range 3 {
			flood(t, r, client, server)
			for range 10 {
				exchange(t, client, server, []byte("x"))
			}
		}
		flood(t, r, client, server)
		exchange(t, server, client, noise(100_000))
		done := sendAll(client, []byte("the end"), true)
		expectAfter(t, done, "server", server, []byte("the end"))
	})
}

// TestDialogueIsNotModerated: however many bytes a request is answered with, and however
// fast, they would have to wait for more that will not come.
func TestDialogueIsNotModerated(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		reply := noise(64 << 10)
		for range 300 {
			exchange(t, client, server, []byte("request"))
			exchange(t, server, client, reply)
		}
		if n := r.Stats().Moderations; n > 0 {
			t.Errorf("moderated %d times", n)
		}
	})
}

// TestModeratedPairIsHandedOver: the engine that takes over knows nothing of it, and would
// wait for ever.
func TestModeratedPairIsHandedOver(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	data, got := noise(64<<20), make([]byte, 32<<20)
	for n := r.Stats().Moderations; r.Stats().Moderations == n; {
		done := sendAll(client, data, false)
		if _, err := io.ReadFull(server, got); err != nil {
			t.Fatal(err)
		}
		moderated := r.Stats().Moderations > n
		if moderated {
			r.handOver(engine.Options{}, 0)
		}
		if _, err := io.ReadFull(server, got); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if moderated {
			break
		}
	}
	exchange(t, client, server, []byte("x"))
}
