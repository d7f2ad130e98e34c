package engine_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/tprelay/tprelay/engine"
)

// flood sends some MiB that are moderated on their way. The server has read all of them
// when it returns.
func flood(t *testing.T, r *rig, client, server *net.TCPConn) {
	t.Helper()
	data := noise(4 << 20)
	done := sendAll(client, data, false)
	got := make([]byte, len(data))
	for at := range 4 {
		r.Moderate()
		if n, err := io.ReadFull(server, got[at<<20:(at+1)<<20]); err != nil {
			t.Fatalf("%v after %d bytes: %+v", err, at<<20+n, r.Stats())
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("other bytes than were sent")
	}
	if r.Stats().Moderations == 0 {
		t.Error("not moderated")
	}
}

// TestModeratedBytesAreNotHeldBack: what comes after the bulk, even a single byte, is passed
// on, although its source was set to wake the loop for a lot only.
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
	data := noise(8 << 20)
	done := sendAll(client, data, true)
	r.Moderate()
	r.handOver(engine.Options{}, 0)
	exchange(t, server, client, []byte("x"))
	expectAfter(t, done, "server", server, data)
}
