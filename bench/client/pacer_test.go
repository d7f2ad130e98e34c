package client

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"pgregory.net/rapid"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/leak"
)

func TestScheduleIsEvenAndCountsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := schedule{
			start:       time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "start")),
			rate:        rapid.Float64Range(1, 1e7).Draw(t, "rate"),
			connections: rapid.IntRange(1, 10_000).Draw(t, "connections"),
		}
		i := rapid.Uint64Range(0, 1e9).Draw(t, "request")
		due := s.due(i)
		if want := s.start.Seconds() + float64(i)/s.rate; due.Seconds() < want-1e-3 || due.Seconds() > want+1e-3 {
			t.Fatalf("request %d is due at %v, wanted %v s", i, due, want)
		}
		// All that are due at that moment, of which there may be several at a high
		// rate, and no other.
		n := s.dueBy(due)
		if n <= i || s.due(n-1) > due || s.due(n) <= due {
			t.Fatalf("%d are due at %v, when request %d is", n, due, i)
		}
		if s.dueBy(s.start-1) != 0 {
			t.Fatal("something is due before the start")
		}
		number := int(i % uint64(s.connections))
		if s.of(number, i/uint64(s.connections)) != i {
			t.Fatalf("request %d is not the connection's", i)
		}
	})
}

func TestLatencyBeginsWhenDueOnlyIfThePacerIsLate(t *testing.T) {
	const due = time.Second
	for woke, want := range map[time.Duration]time.Duration{
		due: due, due + slack/2: due + slack/2, due + slack: due + slack, due + slack + 1: due, due + time.Minute: due,
	} {
		if got := beginning(due, woke); got != want {
			t.Errorf("due at %v, woke at %v: begins at %v, wanted %v", due, woke, got, want)
		}
	}
}

// openLoop runs requests at a rate for a while, lets all of them be answered, and
// gives how many were sent and what was counted.
func openLoop(t *testing.T, job worker.Job, length time.Duration) (sent uint64, result *worker.Result) {
	t.Helper()
	job, err := job.Complete()
	if err != nil {
		t.Fatal(err)
	}
	r := newRequester(job)
	defer r.Close()
	now := time.Now()
	r.Begin(worker.Window{From: now.Add(-time.Hour), To: now.Add(time.Hour)})
	if err := r.SetUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(length) // requests become due meanwhile
	r.pacer.stop()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		var due, open uint64
		sent = 0
		for _, m := range r.members {
			m.mu.Lock()
			due, sent = due+m.due, sent+m.sent
			if m.left > 0 {
				open++
			}
			m.mu.Unlock()
		}
		if sent == due && open == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests were due, %d sent, %d are not answered", due, sent, open)
		}
	}
	result = new(worker.Result)
	r.Finish(t.Context(), result)
	return sent, result
}

func TestOpenLoopSendsEachRequestOnce(t *testing.T) {
	leak.Check(t)
	_, address := serve(t, 1)
	for _, threads := range []int{1, 3} {
		sent, r := openLoop(t, worker.Job{Kind: worker.RR, Address: address, Connections: 70, Rate: 5000, Threads: threads}, 200*time.Millisecond)
		if sent == 0 || r.Requests != sent || r.Errors != 0 {
			t.Errorf("%d were sent, %d answered, %d errors: %s", sent, r.Requests, r.Errors, r.Error)
		}
	}
}

func TestWaitingForABusyConnectionCounts(t *testing.T) {
	leak.Check(t)
	const delay = 5 * time.Millisecond
	done := make(chan struct{}, 10)
	address := listen(t, func(c net.Conn) {
		go func() { // answers one request after the other, slowly
			defer func() { done <- struct{}{} }()
			defer c.Close()
			text, p := make([]byte, 128), protocol.NewPattern(128)
			for {
				if _, err := io.ReadFull(c, text); err != nil {
					return
				}
				r, err := protocol.ParseRequest(text)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(delay) // the server is slow
				c.Write(p.From(int(r.Seed), r.Reply))
			}
		}()
	})
	sent, r := openLoop(t, worker.Job{Kind: worker.RR, Address: address, Rate: 1000}, 10*delay)
	<-done
	// The last of them was due when the pacer was stopped at the latest, and
	// answered when all those before it were.
	longest := time.Duration(hdrhistogram.Import(r.Latency).Max())
	if least := time.Duration(sent)*delay - time.Duration(sent)*time.Millisecond; r.Requests != sent || longest < least*99/100 {
		t.Errorf("%d of %d requests, the longest took %v, wanted at least %v", r.Requests, sent, longest, least)
	}
}
