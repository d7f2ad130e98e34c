package client

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// schedule says when requests are due: request i at start + i/rate, on connection i mod
// connections, whether or not those before it have been answered.
type schedule struct {
	start       time.Duration
	rate        float64 // per second
	connections int
}

func (s schedule) due(i uint64) time.Duration {
	return s.start + time.Duration(float64(i)/s.rate*float64(time.Second))
}

// dueBy is how many requests are due at t or before.
func (s schedule) dueBy(t time.Duration) uint64 {
	if t < s.start {
		return 0
	}
	n := uint64((t - s.start).Seconds() * s.rate)
	for n > 0 && s.due(n-1) > t {
		n--
	}
	for s.due(n) <= t {
		n++
	}
	return n
}

// of is request k, from 0, of a connection.
func (s schedule) of(connection int, k uint64) uint64 {
	return uint64(connection) + k*uint64(s.connections)
}

const (
	// quantum is the least time between two wake-ups of the pacer, to keep it cheap: requests that
	// are due in it are sent together.
	quantum = 250 * time.Microsecond
	// slack is how late the pacer may be before its lateness counts as latency.
	slack = time.Millisecond
	// nap is the longest sleep, so that it can be stopped.
	nap = 50 * time.Millisecond
)

// pacer sends requests by a schedule: the open loop.
//
// When the latency of a request begins:
//   - If its connection is free and the pacer wakes up in time, when the pacer wakes up. That may
//     be quantum and some tens of microseconds after the request was due, which is the generator's
//     coarseness and not the relay's doing.
//   - If the pacer wakes up later than by slack, when the request was due: the machine was busy,
//     also with the relay's work.
//   - If the connection still waits for an earlier reply, when the request was due, however late it
//     can be sent: users do not come later because others wait. (Leaving that out is known as
//     coordinated omission.)
//
// In each case the latency includes the time to write the requests before it in the same burst.
type pacer struct {
	p        *connections
	schedule schedule
	stopping atomic.Bool
	running  sync.WaitGroup
}

func newPacer(p *connections, rate float64) *pacer {
	return &pacer{p: p, schedule: schedule{p.clock.Now(), rate, len(p.members)}}
}

func (q *pacer) start() { q.running.Go(q.run) }

func (q *pacer) stop() {
	q.stopping.Store(true)
	q.running.Wait()
}

func (q *pacer) run() {
	scratch := make([]byte, q.p.job.Request)
	var handed uint64 // requests that were due so far
	var woke time.Duration
	for {
		for then := max(q.schedule.due(handed), woke+quantum); q.p.clock.Now() < then; {
			if q.stopping.Load() {
				return
			}
			// Not by a timer of Go's: those of less than a millisecond are one late.
			sleep := unix.NsecToTimespec(int64(min(then-q.p.clock.Now(), nap)))
			_ = unix.Nanosleep(&sleep, nil) // interrupted: look again
		}
		if q.stopping.Load() {
			return
		}
		woke = q.p.clock.Now()
		for due := q.schedule.dueBy(woke); handed < due; handed++ {
			q.send(handed, woke, scratch)
		}
	}
}

// send sends request i, or leaves that to replied if its connection is busy.
func (q *pacer) send(i uint64, woke time.Duration, scratch []byte) {
	m := q.p.members[i%uint64(len(q.p.members))]
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil {
		return
	}
	m.due++
	if m.left > 0 {
		return
	}
	m.sent++
	q.p.send(m, beginning(q.schedule.due(i), woke), woke, scratch)
}

// beginning is when the latency of a request to a free connection begins.
func beginning(due, woke time.Duration) time.Duration {
	if woke-due > slack {
		return due
	}
	return woke
}

// replied sends the next request that was due while the member's connection was busy.
func (q *pacer) replied(m *member, now time.Duration, scratch []byte) {
	if m.sent < m.due {
		i := q.schedule.of(m.number, m.sent)
		m.sent++
		q.p.send(m, q.schedule.due(i), now, scratch)
	}
}
