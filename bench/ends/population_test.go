package ends

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

func TestSilenceIsAnError(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	address := listen(t, func(c net.Conn) { // answers once, and then no more
		t.Cleanup(func() { c.Close() })
		text := make([]byte, 128)
		if _, err := io.ReadFull(c, text); err == nil {
			if r, err := parseRequest(text); err == nil && !r.close {
				c.Write(newPattern(r.reply).from(int(r.seed), r.reply))
			}
		}
	})
	for _, job := range []Job{{Kind: RR}, {Kind: CPS}} {
		job.Address = address
		r := employ(t, t.Context(), job).ready().measure(short)
		if r.Requests != 0 || r.Errors != 1 || !strings.Contains(r.Error, "no request was answered") {
			t.Errorf("%s: %+v", job.Kind, *r)
		}
	}
	// Who has waited too long is counted by itself.
	p := newPopulation(Job{Connections: 3}, newClock(), nil)
	p.members[0].left, p.members[0].wrote = 1, p.clock.now()-replyLimit
	p.members[1].left, p.members[1].wrote = 1, p.clock.now()
	var r Result
	p.finish(&r, replyLimit)
	if r.Errors != 1 || !strings.Contains(r.Error, "no reply for 5s") {
		t.Errorf("%+v", r)
	}
	// Who was stopped while others had their turns has not.
	for every, want := range map[time.Duration]string{0: "no reply for 5s", time.Second: "no request was answered"} {
		turns := newRequester(Job{Connections: 1}, newClock())
		turns.begin(Window{From: time.Now(), To: time.Now().Add(time.Minute), Every: every, Part: every})
		turns.members[0].left, turns.members[0].wrote = 1, turns.population.clock.now()-replyLimit
		var r Result
		turns.finish(t.Context(), &r)
		if r.Errors != 1 || !strings.Contains(r.Error, want) {
			t.Errorf("turns every %v: %+v", every, r)
		}
	}
}

func TestWhoGetsNoReplyIsNotWaitedForWhileOthersGetNoneEither(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	var served atomic.Int32
	address := listen(t, func(c net.Conn) { // answers the first three
		t.Cleanup(func() { c.Close() })
		text := make([]byte, 128)
		if _, err := io.ReadFull(c, text); err == nil && served.Add(1) <= 3 {
			if r, err := parseRequest(text); err == nil {
				c.Write(newPattern(r.reply).from(int(r.seed), r.reply))
			}
		}
	})
	p := newPopulation(Job{Address: address, Connections: 5, Threads: 1, Request: 128, Reply: 128}, newClock(), nil)
	p.stallLimit = 500 * time.Millisecond
	if err := p.setUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	var r Result
	p.finish(&r, replyLimit)
	if r.Connections != 3 || r.Errors != 2 || r.Error != "no reply, nor one to any other connection for 500ms" {
		t.Errorf("%+v", r)
	}
}
