package worker

import (
	"context"
	"testing"
	"time"
)

// inParts is a window from 100 to 250 of which 100 to 120, 160 to 180 and 220 to 240 count.
func inParts() span { return span{from: 100, to: 250, every: 60, part: 20, settle: 10} }

func TestPartsOfAWindowCount(t *testing.T) {
	var c Counter
	s := inParts()
	c.window.Store(&s)
	for _, at := range []time.Duration{100, 119, 160, 179, 220, 239} {
		if !c.countsAt(at) {
			t.Errorf("%d does not count", at)
		}
	}
	for _, at := range []time.Duration{0, 99, 120, 159, 180, 219, 240, 250, 280} {
		if c.countsAt(at) {
			t.Errorf("%d counts", at)
		}
	}
	parts := s.parts()
	if len(parts) != 3 || parts[0].from != 100 || parts[0].to != 120 || parts[2].from != 220 || parts[2].to != 240 {
		t.Errorf("%+v", parts)
	}
}

func TestBytesCountInTheWindowOnly(t *testing.T) {
	c := Counter{Clock: NewClock()}
	c.Arrived(1)
	c.Begin(Window{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)})
	c.Arrived(7)
	if c.Bytes() != 7 {
		t.Errorf("%d bytes, want 7", c.Bytes())
	}
	c.Begin(Window{From: time.Now().Add(time.Hour), To: time.Now().Add(2 * time.Hour)})
	c.Arrived(7)
	if c.Bytes() != 0 {
		t.Errorf("%d bytes, want none", c.Bytes())
	}
}

func TestAWindowWithoutPartsIsOne(t *testing.T) {
	s := span{from: 100, to: 250}
	if parts := s.parts(); len(parts) != 1 || parts[0] != s {
		t.Errorf("%+v", parts)
	}
	for at, want := range map[time.Duration]bool{99: false, 100: true, 249: true, 250: false} {
		if _, ok := s.in(at); ok != want {
			t.Errorf("%d counts: %v", at, ok)
		}
	}
}

// A request that was under way while its client was stopped has no known latency.
func TestLatencyOverAPauseIsNotCounted(t *testing.T) {
	var c Counter
	tally := NewTally()
	c.Replied(tally, 90, 105) // there is no window yet
	s := inParts()
	c.window.Store(&s)
	for _, request := range [][2]time.Duration{{90, 105}, {150, 161}, {119, 162}, {149, 165}, {130, 140}} {
		c.Replied(tally, request[0], request[1])
	}
	if tally.Requests != 4 || tally.latency.TotalCount() != 2 {
		t.Errorf("%d requests and %d latencies, want 4 and 2", tally.Requests, tally.latency.TotalCount())
	}
}

// observer is a task that notes the deadline of its result.
type observer struct{ until time.Time }

func (*observer) SetUp(context.Context) error { return nil }
func (*observer) Begin(Window)                {}
func (*observer) Close()                      {}
func (o *observer) Finish(ctx context.Context, _ *Result) {
	o.until, _ = ctx.Deadline()
}

// A worker that is stopped during the turns of others has time for its result afterwards.
func TestTurnsExtendTheDeadlineOfAResult(t *testing.T) {
	for _, every := range []time.Duration{0, 20 * time.Second} {
		var o observer
		from := time.Now().Add(5 * time.Millisecond)
		w := Window{From: from, To: from.Add(5 * time.Millisecond), Every: every, Part: every / 2}
		if _, err := measure(t.Context(), &o, w); err != nil {
			t.Fatal(err)
		}
		if left := o.until.Sub(w.To); left != overtime+every {
			t.Errorf("turns every %v: %v for the result", every, left)
		}
	}
}
