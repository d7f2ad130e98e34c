package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// How a pair ends. A FIN travels after the last byte of its direction. When both directions have
// passed one on, the pair is over. An RST travels after the last byte of its direction too, and
// ends the other direction at once. Everything else ends both flows at once, with an RST.

// passFIN passes the FIN of direction s on. Invariant: nothing is pending.
func (l *loop) passFIN(p *pair, s side) {
	p.dir[s].Set(pump.FINSent)
	if _, broken := p.brokenSide(); p.done() && !broken && !p.shared {
		return // endIfDone closes both sockets, which sends the FIN too
	}
	// ENOTCONN: the sink is gone, and its own event says so.
	_ = unix.Shutdown(int(p.fd[s.other()]), unix.SHUT_WR)
	p.last = l.tick
	l.rearm(p) // the half-close timeout begins now, however long the pair was idle
}

// done: both directions have passed on their FIN, and the sources' own were read.
func (p *pair) done() bool { return p.dir[upstream].Done() && p.dir[downstream].Done() }

// endIfDone ends the pair when it is done.
func (l *loop) endIfDone(p *pair) bool {
	if !p.done() {
		return false
	}
	reason := ReasonEOF
	if p.dir[upstream].Is(pump.Closing) {
		reason = ReasonIntercepted
	}
	l.end(p, reason, nil)
	return true
}

// failed notes that flow s is broken: its other end sent an RST, or does not answer. What was on
// its way to it is dropped. What came from it goes on, out of its receive buffer too, and the RST
// travels behind it, as it would have between the two ends: a server that answers and resets has
// been heard. It reports whether the pair lives on.
func (l *loop) failed(p *pair, s side, err error) bool {
	d, other := &p.dir[s], &p.dir[s.other()]
	d.SawFailure()
	both := other.Is(pump.Broken)
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
	if !d.Is(pump.FINCame|pump.EOF) && sock.FINReceived(int(p.fd[s])) {
		d.SawFIN() // behind what is still to be read
	}
	other.SinkGone(&l.env)
	d.DrainSource()
	p.last = l.tick
	l.rearm(p)
	l.queue(p)
	return true
}

// brokenSide is the flow that has failed, if one has.
func (p *pair) brokenSide() (s side, broken bool) {
	if p.dir[outgoing].Is(pump.Broken) {
		return outgoing, true
	}
	return incoming, p.dir[incoming].Is(pump.Broken)
}

// end ends a pair, whatever its state. It is the only way out: descriptors, pipes, queues,
// handlers, timer and record are given back here.
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
		p.dir[s].Release(&l.env)
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
		case reason == ReasonEOF, reason == ReasonIntercepted && p.dir[s].Is(pump.Closing):
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
