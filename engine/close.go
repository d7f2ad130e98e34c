package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/intercept"
)

// How a pair ends. A FIN travels after the last byte, each direction for itself; when
// both have, the pair is over. Everything else ends both flows at once, with an RST.

// passFIN hands the source's FIN on. Invariant: nothing is pending.
func (l *loop) passFIN(p *pair, s side) {
	d := &p.dir[s]
	d.set(finSent)
	// ENOTCONN: the sink is gone, and its own event says so.
	_ = unix.Shutdown(int(p.fd[s.other()]), unix.SHUT_WR)
	l.rearm(p) // for the half-close timeout
}

// endIfDone ends the pair when both directions have passed on their FIN, and the
// sources' own were read.
func (l *loop) endIfDone(p *pair) bool {
	const done = eof | finSent
	up, down := &p.dir[upstream], &p.dir[downstream]
	if up.flags&done != done || down.flags&done != done {
		return false
	}
	reason := ReasonEOF
	if up.is(closing) {
		reason = ReasonIntercepted
	}
	l.end(p, reason, nil)
	return true
}

// sourceFailed ends a pair whose flow s has failed. What was taken from it is offered
// to the other side once more. Always false: the pair has ended.
func (l *loop) sourceFailed(p *pair, s side, err error) bool {
	p.broken[s] = true
	d := &p.dir[s]
	if d.pending > 0 && !p.broken[s.other()] && !l.flush(p, s) {
		return false
	}
	l.end(p, ReasonReset, err)
	return false
}

// sinkFailed ends a pair whose sink refused bytes. It may have sent some before it
// failed: they are read and passed on first. Always false: the pair has ended.
func (l *loop) sinkFailed(p *pair, s side, err error) bool {
	sink := s.other()
	p.broken[sink] = true
	l.release(&p.dir[s])
	p.dir[s].set(eof | finSent)
	p.dir[s].clear(writable)
	last := &p.dir[sink]
	last.set(readable | ending)
	last.clear(paused | full)
	for p.state == stateOpen && l.turn(p, sink) {
	}
	if p.state == stateOpen {
		l.end(p, ReasonReset, err)
	}
	return false
}

// end is the end of a pair, whatever state it is in: descriptors, pipe, buffers,
// handlers, timer and record are given back.
func (l *loop) end(p *pair, reason Reason, err error) {
	for s := range side(2) {
		d := &p.dir[s]
		if d.is(stalled) {
			d.stalledFor += l.tick - d.stalledAt
		}
	}
	if o := l.engine.options.Observer; o != nil {
		info := l.info(p)
		info.Reason = reason
		if err != nil {
			info.Err = err.Error()
		}
		defer o.PairEnded(info)
	}
	l.count.ended[reason]++
	for s := range side(2) {
		l.release(&p.dir[s])
		fd := int(p.fd[s])
		switch {
		case fd < 0:
			continue
		case s == incoming && p.shared:
			l.poller.Remove(fd)
		}
		if reason == ReasonEOF || reason == ReasonIntercepted && p.dir[s].is(closing) {
			unix.Close(fd)
		} else {
			reset(fd)
		}
	}
	l.detachAll(p)
	l.wheel.disarm(&l.pairs, p)
	l.pairs.put(p)
	l.engine.leave()
	for i := range l.listeners {
		l.listeners[i].waiting = false // there are descriptors again, and room for a pair
	}
}

// endAll ends every pair.
func (l *loop) endAll(reason Reason) {
	for slot := range l.pairs.size() {
		if p := l.pairs.at(slot); p.state != stateFree {
			l.end(p, reason, nil)
		}
	}
}

// detachAll lets go of the side table's entry.
func (l *loop) detachAll(p *pair) {
	x := l.extra(p)
	if x == nil {
		return
	}
	for s := range side(2) {
		if x.held[s] >= 0 {
			l.dropHeld(x, s)
		}
	}
	both := intercept.Decision{Upstream: x.handlers[upstream], Downstream: x.handlers[downstream]}
	if err := both.CloseHandlers(); err != nil {
		l.engine.options.Logger.Warn("closing a handler", "pair", p.id, "err", err)
	}
	*x = extra{}
	l.aside[p.slot] = nil
	l.spare = append(l.spare, x)
}

// cleanUp gives back what the loop holds when it ends.
func (l *loop) cleanUp() {
	l.endAll(ReasonDrained)
	for i := range l.listeners {
		unix.Close(l.listeners[i].fd)
	}
	l.listeners = nil
	for _, post := range l.mailbox.close() {
		post(l) // Adopt's descriptors must not leak
	}
	l.endAll(ReasonDrained)
	l.pipes.Close()
	l.publish()
	l.poller.Close()
}
