package engine

import (
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
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
		if sock.Unsent(e.fd) == 0 {
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

// TestClientThatResetsWhileWeConnectIsHeard: what the client sent before its RST has
// arrived, and the server can still be told.
func TestClientThatResetsWhileWeConnectIsHeard(t *testing.T) {
	w := foundWorld(t)
	if err := w.open([2]*behaviour{&behaviours[0], &behaviours[0]}, 0, false, 0); err != nil {
		t.Fatal(err)
	}
	p := w.pairs[0]
	if err := p.end[incoming].write(1000, 1000); err != nil {
		t.Fatal(err)
	}
	p.end[incoming].acknowledged(t)
	p.end[incoming].breakOff(w.tick)
	// The loop is told of the client before it is told of the server.
	if _, err := w.poll(0); err != nil {
		t.Fatal(err)
	}
	for i, ev := range w.events {
		if side(ev.Token().Key&1) == incoming {
			w.showEvent(i)
			break
		}
	}
	w.serve()
	if err := w.settle(); err != nil {
		t.Fatalf("%v\n%v", err, w)
	}
	if server := p.end[outgoing]; len(server.got) != 1000 || !server.reset || p.reason != ReasonReset {
		t.Errorf("the server got %d bytes of 1000, then an RST: %v; the pair ended with %v", len(server.got), server.reset, p.reason)
	}
}

// TestPipeIsLeftForASinkThatRefusesSplice also when nothing more is to be read: what was in
// the pipe goes on at once, for the sink's event has come and will not come again.
func TestPipeIsLeftForASinkThatRefusesSplice(t *testing.T) {
	w := foundWorld(t)
	if err := w.open([2]*behaviour{&behaviours[0], &behaviours[0]}, 0, false, 0); err != nil {
		t.Fatal(err)
	}
	p := w.pairs[0]
	d := func() *pump.Pump { return &w.find(p.ref).dir[upstream] }
	inPipe := func() bool {
		_, pipe, _ := d().Stored(&w.env)
		return pipe
	}
	for i := 0; i < 1000 && !(inPipe() && !d().Is(pump.Writable)); i++ {
		if err := p.end[incoming].write(100_000, 100_000); err != nil {
			t.Fatal(err)
		}
		if _, err := w.poll(1); err != nil {
			t.Fatal(err)
		}
		w.tell()
		w.serve()
	}
	if !inPipe() {
		t.Fatalf("nothing waits in a pipe\n%v", w)
	}
	w.refuseSplice(p, outgoing)
	if err := w.settle(); err != nil {
		t.Fatalf("%v\n%v", err, w)
	}
	if err := w.checkEmpty(); err != nil {
		t.Fatalf("%v\n%v", err, w)
	}
	if w.count.SpliceRefused == 0 {
		t.Error("splice was not refused")
	}
}
