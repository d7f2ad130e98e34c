package worker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Clock gives times as the time since it was made, by the monotonic clock alone.
type Clock struct{ base time.Time }

// NewClock returns a clock that starts now.
func NewClock() Clock { return Clock{time.Now()} }

// Now is the time since the clock was made.
func (c Clock) Now() time.Duration { return time.Since(c.base) }

// At is the wall clock's time of t.
func (c Clock) At(t time.Duration) time.Time { return c.base.Add(t) }

// SleepUntil waits until then, or returns the cause of ctx's end.
func (c Clock) SleepUntil(ctx context.Context, then time.Duration) error {
	timer := time.NewTimer(then - c.Now())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// span is a window by a clock: from is in it, to is not.
type span struct {
	from, to            time.Duration
	every, part, settle time.Duration // see Window
}

func (c Clock) span(w Window) span {
	return span{w.From.Sub(c.base), w.To.Sub(c.base), w.Every, w.Part, w.Settle}
}

// in gives the part of the window that t is in.
func (s span) in(t time.Duration) (part span, ok bool) {
	if t < s.from || t >= s.to {
		return part, false
	}
	if s.every == 0 {
		return s, true
	}
	from := s.from + (t-s.from)/s.every*s.every
	part = span{from: from, to: min(from+s.part, s.to), settle: s.settle}
	return part, t < part.to
}

// parts gives all parts.
func (s span) parts() (parts []span) {
	for at := s.from; at < s.to; at += s.every {
		part, _ := s.in(at)
		parts = append(parts, part)
		if s.every == 0 {
			break
		}
	}
	return parts
}

// Counter counts bytes and requests in the window, once there is one. The zero value but for its
// clock has none. It may be used from any goroutine.
type Counter struct {
	Clock
	window atomic.Pointer[span]
	bytes  atomic.Uint64
}

// Begin makes the window known, before it begins.
func (c *Counter) Begin(w Window) {
	s := c.span(w)
	c.bytes.Store(0)
	c.window.Store(&s)
}

// Counts says whether the window is known, and it is open now.
func (c *Counter) Counts() bool { return c.countsAt(c.Now()) }

func (c *Counter) countsAt(t time.Duration) bool {
	s := c.window.Load()
	if s == nil {
		return false
	}
	_, ok := s.in(t)
	return ok
}

// Arrived counts bytes that arrive now.
func (c *Counter) Arrived(bytes int) {
	if c.Counts() {
		c.bytes.Add(uint64(bytes))
	}
}

// Bytes are those that arrived in the window.
func (c *Counter) Bytes() uint64 { return c.bytes.Load() }

// Paused is how long the client may be stopped between two parts of its window.
func (c *Counter) Paused() time.Duration {
	if s := c.window.Load(); s != nil {
		return s.every
	}
	return 0
}

// Replied counts a request that began at first and whose reply is complete now. If the client was
// stopped meanwhile, its latency is unknown and left out.
func (c *Counter) Replied(t *Tally, first, now time.Duration) {
	s := c.window.Load()
	if s == nil {
		return
	}
	part, ok := s.in(now)
	if !ok {
		return
	}
	t.Requests++
	if s.every == 0 || first >= part.from-part.settle {
		t.add(now - first)
	}
}

// The bounds of latencies in a histogram.
const (
	MinLatency = time.Microsecond
	maxLatency = time.Minute
)

// Tally counts requests for one goroutine or event loop.
type Tally struct {
	Requests    uint64
	Connections uint64
	latency     *hdrhistogram.Histogram
}

// NewTally returns an empty one.
func NewTally() *Tally {
	return &Tally{latency: hdrhistogram.New(int64(MinLatency), int64(maxLatency), 3)}
}

// add notes the latency of a request.
func (t *Tally) add(took time.Duration) {
	_ = t.latency.RecordValue(int64(min(max(took, MinLatency), maxLatency))) // fails out of bounds only
}

// Merge adds tallies up into the result.
func (r *Result) Merge(tallies []*Tally) {
	sum := NewTally()
	for _, t := range tallies {
		r.Requests += t.Requests
		sum.latency.Merge(t.latency)
	}
	r.Latency = sum.latency.Export()
}

// ExpectRequests counts an error if nothing was answered in the window and nothing else failed.
func (r *Result) ExpectRequests() {
	if r.Requests == 0 && r.Errors == 0 {
		r.Errors, r.Error = 1, "no request was answered in the window"
	}
}

// Faults counts errors and keeps the first. The zero value has none. It may be used from any
// goroutine.
type Faults struct {
	count atomic.Uint64
	first atomic.Pointer[string]
}

// Note counts an error.
func (f *Faults) Note(err error) {
	text := err.Error()
	f.first.CompareAndSwap(nil, &text)
	f.count.Add(1)
}

// Count is how many there were.
func (f *Faults) Count() uint64 { return f.count.Load() }

// Report puts them into a result.
func (f *Faults) Report(r *Result) {
	r.Errors = f.count.Load()
	if first := f.first.Load(); first != nil {
		r.Error = *first
	}
}
