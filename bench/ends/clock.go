package ends

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// clock gives times as what has passed since it was made: reading it asks the
// monotonic clock alone.
type clock struct{ base time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() time.Duration { return time.Since(c.base) }

// span is a window by a clock: from is in it, to is not.
type span struct {
	from, to          time.Duration
	every, part, lead time.Duration // see Window
}

func (c clock) span(w Window) span {
	return span{w.From.Sub(c.base), w.To.Sub(c.base), w.Every, w.Part, w.Lead}
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
	part = span{from: from, to: min(from+s.part, s.to), lead: s.lead}
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

// counting is the window that counts, once there is one, and the bytes that came in it.
type counting struct {
	now   atomic.Pointer[span]
	count atomic.Uint64
}

func (c *counting) begin(s span) {
	c.count.Store(0)
	c.now.Store(&s)
}

// has: the window is known, and t is in it.
func (c *counting) has(t time.Duration) bool {
	s := c.now.Load()
	if s == nil {
		return false
	}
	_, ok := s.in(t)
	return ok
}

// arrive counts bytes that come now.
func (c *counting) arrive(now time.Duration, bytes int) {
	if c.has(now) {
		c.count.Add(uint64(bytes))
	}
}

// replied counts a request that began at first, and whose reply is complete now. If its client
// was stopped meanwhile, nobody can say what the latency was.
func (c *counting) replied(t *tally, first, now time.Duration) {
	s := c.now.Load()
	if s == nil {
		return
	}
	part, ok := s.in(now)
	if !ok {
		return
	}
	t.requests++
	if s.every == 0 || first >= part.from-part.lead {
		t.add(now - first)
	}
}

// sleepUntil waits until then, or returns the cause of ctx's end.
func (c clock) sleepUntil(ctx context.Context, then time.Duration) error {
	timer := time.NewTimer(then - c.now())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// The bounds of what a histogram of latencies can tell apart.
const (
	leastLatency = time.Microsecond
	mostLatency  = time.Minute
)

// tally counts requests, for one goroutine or loop.
type tally struct {
	requests    uint64
	connections uint64
	latency     *hdrhistogram.Histogram
}

func newTally() *tally {
	return &tally{latency: hdrhistogram.New(int64(leastLatency), int64(mostLatency), 3)}
}

// add notes the latency of a request.
func (t *tally) add(took time.Duration) {
	_ = t.latency.RecordValue(int64(min(max(took, leastLatency), mostLatency))) // fails out of bounds only
}

// merge adds tallies up, into the result.
func merge(tallies []*tally, r *Result) {
	sum := newTally()
	for _, t := range tallies {
		r.Requests += t.requests
		sum.latency.Merge(t.latency)
	}
	r.Latency = sum.latency.Export()
}
