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
type span struct{ from, to time.Duration }

func (c clock) span(w Window) span { return span{w.From.Sub(c.base), w.To.Sub(c.base)} }

// counting is the window that counts, once there is one.
type counting struct{ now atomic.Pointer[span] }

func (c *counting) begin(s span) { c.now.Store(&s) }

// has: the window is known, and t is in it.
func (c *counting) has(t time.Duration) bool {
	s := c.now.Load()
	return s != nil && t >= s.from && t < s.to
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

// add counts a request that took so long.
func (t *tally) add(took time.Duration) {
	t.requests++
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
