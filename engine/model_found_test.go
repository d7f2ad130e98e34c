package engine

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the model has found, as the shortest orders of calls that show it.

func foundWorld(t *testing.T) *modelWorld {
	t.Helper()
	w, err := newModelWorld(Options{}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// acknowledged waits until all that the end sent has reached the other end's kernel.
func (e *modelEnd) acknowledged(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if n, err := unix.IoctlGetInt(e.fd, unix.TIOCOUTQ); err != nil || n == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not acknowledged")
		}
	}
}

// TestServerThatResetsBeforeItIsConnectedIsHeard: the server has accepted, answered and
// reset before the loop is told that the connection stands. That is no failed dial.
func TestServerThatResetsBeforeItIsConnectedIsHeard(t *testing.T) {
	w := foundWorld(t)
	if err := w.open([2]*behaviour{&behaviours[0], &behaviours[0]}, 0, false, 0); err != nil {
		t.Fatal(err)
	}
	p := w.pairs[0]
	if err := p.end[outgoing].write(1000, 1000); err != nil {
		t.Fatal(err)
	}
	p.end[outgoing].acknowledged(t)
	p.end[outgoing].breakOff(w.tick)
	if err := w.settle(); err != nil {
		t.Fatalf("%v\n%v", err, w)
	}
	if client := p.end[incoming]; len(client.got) != 1000 || !client.reset || p.reason != ReasonReset {
		t.Errorf("the client got %d bytes of 1000, then an RST: %v; the pair ended with %v", len(client.got), client.reset, p.reason)
	}
}
