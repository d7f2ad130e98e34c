package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
)

// A pair is two pumps. This file gives them their turns, and acts on what they return.

// service gives each direction of an open pair a turn.
func (l *loop) service(p *pair) {
	for s := range side(2) {
		if p.dir[s].Is(pump.Broken) && !l.failed(p, s, nil) {
			return
		}
	}
	again := l.turn(p, upstream)
	if p.state != stateOpen {
		return
	}
	again = l.turn(p, downstream) || again
	if p.state != stateOpen {
		return
	}
	if again {
		l.queue(p)
		return
	}
	if s, broken := p.brokenSide(); broken {
		l.passReset(p, s)
		return
	}
	l.endIfDone(p)
}

// turn gives direction s a turn. Again: more could be moved at once. The pair may have ended: the
// caller looks at its state.
func (l *loop) turn(p *pair, s side) (again bool) {
	d := &p.dir[s]
	if d.Idle() {
		return false
	}
	ends := l.ends(p, s)
	r := d.Turn(&l.env, ends, 0)
	for r.Has(pump.BrokenOff) {
		l.beginMeter(p, s)
		if !l.act(p, s, &r) {
			return false
		}
		r = d.Turn(&l.env, ends, r.Taken)
	}
	if !l.act(p, s, &r) {
		return false
	}
	if r.Taken > 0 {
		p.last = l.tick
		l.noteRun(p, s, r.Taken)
	}
	// A throttled direction that no longer stalls may go on without, and be free again.
	if r.Has(pump.StallBegan) || r.Has(pump.StallEnded) && d.Is(pump.Throttled) {
		l.observeStall(p, s)
	}
	if d.FINDue() {
		l.passFIN(p, s)
	}
	return r.Has(pump.Again)
}

// ends prepares the environment for direction s of the pair, and returns what the pump cannot
// know by itself.
func (l *loop) ends(p *pair, s side) pump.Ends {
	e := &l.env
	e.Tick, e.Interactive, e.NoPipes = l.tick, l.interactive(), l.holding
	ends := pump.Ends{Source: int(p.fd[s]), Sink: int(p.fd[s.other()]), Shut: p.dir[s.other()].Is(pump.FINSent)}
	if x := l.extra(p); x != nil {
		ends.Tap = &x.taps[s]
	}
	return ends
}

// act does what a pair must do at once about what has happened to direction s. False: its turn is
// over, and maybe the pair.
func (l *loop) act(p *pair, s side, r *pump.Result) bool {
	l.noteDelivered(p, s, r)
	if r.Has(pump.SourceFailed) && !l.failed(p, s, r.SourceErr) {
		return false
	}
	switch {
	case r.Has(pump.Inconsistent):
		l.end(p, ReasonReset, unix.EIO)
		return false
	case r.Has(pump.HandlerReset):
		l.endedByHandler(p, s, r)
		return false
	case r.Has(pump.SinkFailed): // the direction is over
		l.failed(p, s.other(), r.SinkErr)
		return false
	}
	if r.Has(pump.HandlerClosed) {
		p.dir[s.other()].Set(pump.Closing)
		l.queue(p) // the other direction may have had its turn
	}
	if r.Has(pump.WaitsForMemory) {
		l.memWaiters = append(l.memWaiters, p.ref())
	}
	if r.Has(pump.RearmSink) {
		if l.poller.Rearm(int(p.fd[s.other()]), p.token(s.other())) != nil {
			// No event will come: the next turn looks at the sink again.
			p.dir[s].MayWrite()
			l.queue(p)
		}
	}
	return true
}

// noteDelivered counts what the sink of direction s has taken.
func (l *loop) noteDelivered(p *pair, s side, r *pump.Result) {
	if r.Delivered[0]+r.Delivered[1] == 0 {
		return
	}
	p.last = l.tick
	for path, n := range r.Delivered {
		l.count.delivered[s][path] += uint64(n)
	}
}

// noteRun notes that a turn of direction s took n bytes from its source. It ends the run of the
// other direction.
func (l *loop) noteRun(p *pair, s side, n int) {
	now := l.millis()
	if o := &p.dir[s.other()]; o.Runs() {
		l.noteReply(o, now)
		l.lastTurnaround = l.tick
	}
	d := &p.dir[s]
	events := d.NoteRun(n, now)
	if l.env.Unbounded {
		events &= pump.IsBulk // without flow control nothing else is limited either
	}
	if events&pump.Moves != 0 && !d.Is(pump.Metered) {
		l.beginMeter(p, s)
	}
	if events&pump.Probe != 0 {
		l.lookForQueue(p, s)
	}
	if events&pump.IsBulk != 0 {
		l.beginModeration(p, s)
	}
}

// interactive: a pair of this loop turned from one direction to the other in this tick or the last.
// The next message is not to wait for moves that are larger than need be.
func (l *loop) interactive() bool { return l.tick-l.lastTurnaround <= 1 }

// retryStarved gives the directions another turn that wait for memory, once per tick.
func (l *loop) retryStarved() {
	waiters := l.memWaiters
	l.memWaiters = l.memWaiters[len(l.memWaiters):]
	for _, r := range waiters {
		if p := l.find(r); p != nil {
			p.dir[upstream].Clear(pump.Starved)
			p.dir[downstream].Clear(pump.Starved)
			l.queue(p)
		}
	}
	if len(l.memWaiters) == 0 {
		l.memWaiters = waiters[:0]
	}
}
