package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
)

// How a pair ends. A FIN travels after the last byte, each direction for itself; when
// both have, the pair is over. An RST travels after the last byte of its direction too,
// and ends the other one at once. Everything else ends both flows at once, with an RST.

// passFIN hands the source's FIN on. Invariant: nothing is pending.
func (l *loop) passFIN(p *pair, s side) {
	p.dir[s].set(finSent)
	if _, broken := p.brokenSide(); p.done() && !broken && !p.shared {
		return // endIfDone closes both: that says it too
	}
	// ENOTCONN: the sink is gone, and its own event says so.
	_ = unix.Shutdown(int(p.fd[s.other()]), unix.SHUT_WR)
	p.last = l.tick
	l.rearm(p) // for the half-close timeout, which begins now, however long the pair was idle
}

// done: both directions have passed on their FIN, and the sources' own were read.
func (p *pair) done() bool {
	const done = eof | finSent
	return p.dir[upstream].flags&p.dir[downstream].flags&done == done
}

// endIfDone ends the pair when it is done.
func (l *loop) endIfDone(p *pair) bool {
	if !p.done() {
		return false
	}
	reason := ReasonEOF
	if p.dir[upstream].is(closing) {
		reason = ReasonIntercepted
	}
	l.end(p, reason, nil)
	return true
}

// failed notes that flow s is broken: its other end sent an RST, or does not answer. What
// was on its way to it is dropped. What came from it goes on, out of its receive buffer
// too, and the RST travels behind it, as it would have between the two ends: a server
// that answers and resets has been heard. It reports whether the pair lives on.
func (l *loop) failed(p *pair, s side, err error) bool {
	p.broken[s] = true
	both := p.broken[s.other()]
	if p.cause != 0 && !both {
		return true // known already
	}
	if err == nil { // the socket may still have it
		err = sock.Error(int(p.fd[s]))
	}
	if both {
		l.end(p, ReasonReset, err)
		return false
	}
	p.cause = uint8(unix.ECONNRESET)
	if errno, ok := err.(unix.Errno); ok && errno != unix.EPIPE { // EPIPE: a reset behind a FIN, or told before
		p.cause = uint8(errno)
	}
	if !p.dir[s].is(finCame|eof) && sock.FINReceived(int(p.fd[s])) {
		p.dir[s].set(finCame) // behind what is still to be read
	}
	to := &p.dir[s.other()]
	l.release(to)
	to.set(eof | finSent)
	to.clear(readable | writable | paused | full)
	p.dir[s].set(readable | ending)
	p.last = l.tick
	l.rearm(p)
	l.queue(p)
	return true
}

// endedByReset: the end that a read of flow s has just met is no FIN. A write tells of a reset
// by the bytes that it moved before, and keeps the error to itself; no event and no
// read says anything of it any more. But a connection that has come to its end before we
// sent our own FIN was reset. Where an event told of a FIN there is nothing to ask.
func (l *loop) endedByReset(p *pair, s side) bool {
	const closed = 7 // TCP_CLOSE in include/net/tcp_states.h
	return !p.dir[s].is(finCame) && !p.broken[s] && !p.dir[s.other()].is(finSent) && l.tcpInfo(int(p.fd[s])) && l.tcp.State == closed &&
		!sock.FINReceived(int(p.fd[s]))
}

// sinkFailed notes that the sink of direction s refused bytes. Always false: the
// direction is over.
func (l *loop) sinkFailed(p *pair, s side, err error) bool {
	l.failed(p, s.other(), err)
	return false
}

// cutOff: flow s has failed, and no FIN had come. After a FIN the other side has all there is:
// it gets the FIN, and the RST behind it. Errors do not tell: a socket reports each once, and
// reads then say 0 as after a FIN.
func (p *pair) cutOff(s side) bool { return p.broken[s] && !p.dir[s].is(finCame) }

// brokenSide is the flow that has failed, if one has.
func (p *pair) brokenSide() (s side, broken bool) {
	if p.broken[outgoing] {
		return outgoing, true
	}
	return incoming, p.broken[incoming]
}

// end is the end of a pair, whatever state it is in: descriptors, pipe, buffers,
// handlers, timer and record are given back.
func (l *loop) end(p *pair, reason Reason, err error) {
	if reason != ReasonEOF && reason != ReasonIntercepted && reason != ReasonPanicked {
		l.sayLast(p)
	}
	if f := l.engine.options.Observer.PairEnded; f != nil {
		info := l.info(p)
		info.Reason, info.Err = reason, err
		defer l.callPairEnded(f, info)
	}
	l.count.ended[reason]++
	for s := range side(2) {
		l.release(&p.dir[s])
		fd := int(p.fd[s])
		switch {
		case fd < 0:
			continue
		case p.shared:
			l.poller.Remove(fd)
		}
		switch {
		case reason == ReasonHandedOver:
			unix.Close(fd) // the connection goes on in the other engine
		case reason == ReasonEOF, reason == ReasonIntercepted && p.dir[s].is(closing):
			sock.CloseWithFIN(fd)
		case p.shared:
			sock.Disconnect(fd)
			unix.Close(fd)
		default:
			sock.CloseWithRST(fd)
		}
	}
	l.putBack(p)
}

// putBack gives back what a pair without descriptors and queues still holds, and its
// record.
func (l *loop) putBack(p *pair) {
	l.leaveSource(p)
	l.stopWaitingForFD(p)
	// Last, when nothing of the pair is left: Goexit in a callback must not leave half a pair.
	defer l.callClose(p.id, l.detachAll(p))
	l.wheel.disarm(&l.pairs, p)
	l.pairs.put(p)
	l.engine.leave()
	l.resumeListeners() // there are descriptors again, and room for a pair
}

// endAll ends every pair.
func (l *loop) endAll(reason Reason) {
	for slot := range l.pairs.size() {
		if p := l.pairs.at(slot); p.state != stateFree {
			l.end(p, reason, nil)
		}
	}
}

// detachAll lets go of the side table's entry, and gives the handlers back, which are to be closed.
func (l *loop) detachAll(p *pair) (handlers intercept.Decision) {
	x := l.extra(p)
	if x == nil {
		return handlers
	}
	for s := range side(2) {
		if x.held[s] >= 0 {
			l.dropHeld(x, s)
		}
	}
	handlers = intercept.Decision{Upstream: x.handlers[upstream], Downstream: x.handlers[downstream]}
	*x = pairExtra{}
	l.sideTable[p.slot] = nil
	l.freeExtras = append(l.freeExtras, x)
	return handlers
}

// endEverything ends what the loop serves. A callback that calls runtime.Goexit may break it off
// anywhere; cleanUp calls it again then.
func (l *loop) endEverything() {
	l.clock()
	l.over = true
	l.endAll(ReasonDrained)
	l.discardListeners()
	l.mailbox.close()
	l.mailbox.empty(l) // also what Adopt has posted: its connections are reset
	l.endAll(ReasonDrained)
}

// cleanUp gives back what the loop holds when it ends. It calls no callbacks, as it also runs when
// one has called runtime.Goexit: another Goexit would break it off.
func (l *loop) cleanUp() {
	l.gone = true
	l.endEverything()
	l.pipes.Close()
	l.largePipes.Close()
	l.publish()
	l.poller.Close()
}
