package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter counts bytes and connections by the second. Its time begins with start.
type meter struct {
	out   *printer
	bytes atomic.Int64 // in all

	mu     sync.Mutex
	began  time.Time
	active int
	conns  int // in all
	from   time.Duration
	told   int64 // bytes of the intervals that were printed
}

// start notes a connection, the first of which starts the time.
func (m *meter) start() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.began.IsZero() {
		m.began = time.Now()
	}
	m.active++
	m.conns++
	return time.Since(m.began)
}

// end notes the end of a connection.
func (m *meter) end() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active--
	return time.Since(m.began)
}

// add counts bytes.
func (m *meter) add(n int) {
	m.bytes.Add(int64(n))
}

// tick prints the interval that is over, if one is, and says how long to wait
// before the next call. Seconds in which there was nothing are not printed.
func (m *meter) tick() time.Duration {
	const idle = 20 * time.Millisecond // to notice the first connection
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.began.IsZero() {
		return idle
	}
	if now := time.Since(m.began); now >= m.next() {
		m.tell(now)
	}
	return m.next() - time.Since(m.began)
}

// keepTicking calls tick when it is time, until stop.
func (m *meter) keepTicking() (stop func()) {
	done := make(chan struct{})
	var ticker sync.WaitGroup
	ticker.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(m.tick()):
			}
		}
	})
	return func() {
		close(done)
		ticker.Wait()
	}
}

// next is the full second at which the current interval is over.
func (m *meter) next() time.Duration { return m.from.Truncate(time.Second) + time.Second }

// finish prints what is left and the total, with what more there is in e.
func (m *meter) finish(e event) { m.stopwatch()(e) }

// stopwatch ends the time and prints what is left; the function that it returns
// prints the total, later, when more is known.
func (m *meter) stopwatch() (report func(event)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var end time.Duration
	if !m.began.IsZero() {
		end = time.Since(m.began)
		m.tell(end)
	}
	return func(e event) {
		if e.Delivered != nil {
			e.Waited = (time.Since(m.began) - end).Seconds()
		}
		e.Event, e.End, e.Bytes, e.Connections = eventTotal, end.Seconds(), m.bytes.Load(), m.conns
		m.out.print(e)
	}
}

// tell prints the interval from the last one's end to now. The caller holds mu.
func (m *meter) tell(now time.Duration) {
	bytes := m.bytes.Load()
	e := event{Event: eventInterval, Start: m.from.Seconds(), End: now.Seconds(), Bytes: bytes - m.told, Connections: m.active}
	m.from, m.told = now, bytes
	if e.Bytes > 0 || e.Connections > 0 {
		m.out.print(e)
	}
}
