package client

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/leak"
)

func TestSilenceIsAnError(t *testing.T) {
	leak.Check(t)
	address := listen(t, func(c net.Conn) { // answers once, and then no more
		t.Cleanup(func() { c.Close() })
		text := make([]byte, 128)
		if _, err := io.ReadFull(c, text); err == nil {
			if r, err := protocol.ParseRequest(text); err == nil && !r.Close {
				c.Write(protocol.NewPattern(r.Reply).From(int(r.Seed), r.Reply))
			}
		}
	})
	for _, job := range []worker.Job{{Kind: worker.RR}, {Kind: worker.CPS}} {
		job.Address = address
		r := start(t, t.Context(), job).Ready().Measure(short)
		if r.Requests != 0 || r.Errors != 1 || !strings.Contains(r.Error, "no request was answered") {
			t.Errorf("%s: %+v", job.Kind, *r)
		}
	}
	// Who has waited too long is counted by itself.
	p := newConnections(worker.Job{Connections: 3}, nil)
	p.members[0].left, p.members[0].wrote = 1, p.clock.Now()-replyLimit
	p.members[1].left, p.members[1].wrote = 1, p.clock.Now()
	var r worker.Result
	p.report(&r, replyLimit)
	if r.Errors != 1 || !strings.Contains(r.Error, "no reply for 5s") {
		t.Errorf("%+v", r)
	}
	// Who was stopped while others had their turns has not.
	for every, want := range map[time.Duration]string{0: "no reply for 5s", time.Second: "no request was answered"} {
		turns := newRequester(worker.Job{Connections: 1})
		turns.Begin(worker.Window{From: time.Now(), To: time.Now().Add(time.Minute), Every: every, Part: every})
		turns.members[0].left, turns.members[0].wrote = 1, turns.clock.Now()-replyLimit
		var r worker.Result
		turns.Finish(t.Context(), &r)
		if r.Errors != 1 || !strings.Contains(r.Error, want) {
			t.Errorf("turns every %v: %+v", every, r)
		}
	}
}

func TestWhoGetsNoReplyIsNotWaitedForWhileOthersGetNoneEither(t *testing.T) {
	leak.Check(t)
	var served atomic.Int32
	address := listen(t, func(c net.Conn) { // answers the first three
		t.Cleanup(func() { c.Close() })
		text := make([]byte, 128)
		if _, err := io.ReadFull(c, text); err == nil && served.Add(1) <= 3 {
			if r, err := protocol.ParseRequest(text); err == nil {
				c.Write(protocol.NewPattern(r.Reply).From(int(r.Seed), r.Reply))
			}
		}
	})
	p := newConnections(worker.Job{Address: address, Connections: 5, Threads: 1, Request: 128, Reply: 128}, nil)
	p.stallLimit = 500 * time.Millisecond
	if err := p.SetUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	var r worker.Result
	p.report(&r, replyLimit)
	if r.Connections != 3 || r.Errors != 2 || r.Error != "no reply, nor one to any other connection for 500ms" {
		t.Errorf("%+v", r)
	}
}
