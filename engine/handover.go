package engine

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// handOverBatch is how many pairs leave a loop between two answers of the other side:
// few, because they stand still meanwhile and their pending bytes are held twice.
const handOverBatch = 16

// parcel is a pair on its way to another engine.
type parcel struct {
	reference
	state state
	wire  pairState
	fds   []int
	body  [][]byte
}

// HandOver gives the listeners and the live pairs to the engine of another process, which
// was made by TakeOver with the other end of fd, a stream socket of the Unix domain
// (blocking, as socketpair makes it). It waits until the other one serves, then moves
// the pairs some at a time, with their descriptors and pending bytes; up to the end, both
// accept. Connections notice a pause of well under a millisecond.
//
// Pairs of which a handler sees the bytes cannot move, for the handler's state is its
// own: left says how many stay. After success the engine closes its listeners and
// drains as if Run's context had been cancelled. On error it goes on with everything that
// was not taken; the error says whether the other side had begun. fd stays the caller's,
// who may shut it down to end the wait. One call at a time.
func (e *Engine) HandOver(fd int) (left int, err error) {
	if err := e.runs(); err != nil {
		return 0, err
	}
	if e.takesOver() { // what is still on its way to us would be left behind
		return 0, errors.New("hand-over: still taking over from the process before")
	}
	k := link{fd}
	if err := e.offerListeners(k); err != nil {
		return 0, err
	}
	if _, err := k.expect(frameReady); err != nil {
		return 0, err
	}
	moved := 0
	defer func() {
		if err != nil {
			e.ask(func(l *loop) { l.stopAccepting(false) })
			err = fmt.Errorf("%w (after %d pairs had moved)", err, moved)
		}
	}()
	for _, last := range []bool{false, true} {
		if last { // now those that were accepted during the first round
			e.ask(func(l *loop) { l.stopAccepting(true) })
		}
		for _, l := range e.loops {
			n, err := l.handOver(k)
			moved += n
			if err != nil {
				return 0, err
			}
		}
	}
	if err := k.send(frameDone, nil, nil); err != nil {
		return 0, err
	}
	if _, err := k.expect(frameAck); err != nil {
		return 0, err
	}
	e.ask(func(l *loop) {
		l.discardListeners() // who waits in their backlogs is served by the engine that has the same sockets
		l.drain()
		left += l.pairs.used
	})
	return left, nil
}

// offerListeners tells what we listen on. Both sides have the sockets from then on.
func (e *Engine) offerListeners(k link) (err error) {
	var sockets []socket
	e.ask(func(l *loop) {
		for _, ln := range l.listeners {
			fd, dupErr := unix.FcntlInt(uintptr(ln.fd), unix.F_DUPFD_CLOEXEC, 0) // the loop may close its own while we send
			if dupErr != nil {
				err = fmt.Errorf("hand-over: duplicate a listener: %w", dupErr)
				return
			}
			sockets = append(sockets, socket{l.engine.listenerState(ln.index), fd})
		}
	})
	defer func() { closeSockets(sockets) }()
	if err != nil {
		return err
	}
	if err := k.send(frameHello, helloState{wireVersion, e.generation, len(sockets)}, nil); err != nil {
		return err
	}
	for _, s := range sockets {
		if err := k.send(frameListener, s.listenerState, []int{s.fd}); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) listenerState(index int) listenerState {
	return listenerState{e.addrs[index], e.options.Listeners[index].Mode}
}

// ask runs f on every loop that still runs, one after the other.
func (e *Engine) ask(f func(*loop)) {
	for _, l := range e.loops {
		l.ask(f)
	}
}

// handOver moves the loop's pairs to the other side of k and says how many went.
func (l *loop) handOver(k link) (moved int, err error) {
	for slot := int32(0); slot >= 0; {
		var batch []parcel
		l.ask(func(l *loop) { batch, slot = l.freezeFrom(slot) })
		if len(batch) == 0 {
			return moved, nil
		}
		if err := k.sendPairs(batch); err != nil {
			l.ask(func(l *loop) {
				for _, c := range batch {
					l.thaw(c)
				}
			})
			return moved, err
		}
		l.ask(func(l *loop) {
			for _, c := range batch {
				l.forget(c)
			}
		})
		moved += len(batch)
	}
	return moved, nil
}

// sendPairs returns when they are the other side's.
func (k link) sendPairs(batch []parcel) error {
	for _, c := range batch {
		if err := k.send(framePair, c.wire, c.fds, c.body...); err != nil {
			return err
		}
	}
	if err := k.send(frameSync, nil, nil); err != nil {
		return err
	}
	_, err := k.expect(frameAck)
	return err
}

// freezeFrom freezes the next pairs from slot on; next is where to go on, or -1.
func (l *loop) freezeFrom(slot int32) (batch []parcel, next int32) {
	for ; slot < l.pairs.size(); slot++ {
		if len(batch) == handOverBatch {
			return batch, slot
		}
		if p := l.pairs.at(slot); p.state != stateFree && p.state != stateLeaving && !l.handledPair(p) {
			if c, err := l.freeze(p); err == nil {
				batch = append(batch, c)
			} else {
				l.end(p, ReasonReset, err)
			}
		}
	}
	return batch, -1
}

// handledPair: a handler has not let go yet.
func (l *loop) handledPair(p *pair) bool {
	return (p.dir[upstream].flags|p.dir[downstream].flags)&handled != 0
}

// freeze stops a pair: it has no events, no timer and no turn until thaw or forget.
// Its record stays as it is, but that what was in pipes is in buffers.
func (l *loop) freeze(p *pair) (c parcel, err error) {
	c = parcel{reference: reference{p.slot, p.generation}, state: p.state}
	for s := range side(2) {
		d := &p.dir[s]
		if d.is(moderated) {
			l.unmoderate(p, s) // the other side does not know
		}
		if d.is(inPipe) {
			if err := l.emptyPipe(d); err != nil {
				return c, err
			}
		}
	}
	c.wire = l.wireState(p)
	for s := range side(2) {
		if fd := int(p.fd[s]); fd >= 0 {
			l.poller.Remove(fd)
			c.fds = append(c.fds, fd)
		}
		if d := &p.dir[s]; d.pending > 0 {
			c.body = append(c.body, l.buffers.appendTo(nil, d.box))
		}
	}
	l.wheel.disarm(&l.pairs, p)
	l.unpark(p)
	p.state = stateLeaving
	return c, nil
}

// thaw lets a pair go on that was not taken.
func (l *loop) thaw(c parcel) {
	p := l.find(c.reference)
	if p == nil {
		return
	}
	p.state = c.state
	l.restart(p)
}

// restart registers a pair's flows and lets it go on. What there is to do is found out by
// trying.
func (l *loop) restart(p *pair) {
	for s := range side(2) {
		if fd := int(p.fd[s]); fd >= 0 {
			if err := l.poller.Add(fd, p.token(s)); err != nil {
				l.end(p, ReasonReset, err)
				return
			}
		}
		p.dir[s].set(readable)
		if p.state == stateOpen {
			p.dir[s].set(writable)
		}
	}
	switch p.state {
	case stateWaiting:
		p.state = stateConnecting
		l.park(p)
	case stateConnecting:
		l.armConnect(p)
	case stateOpen:
		l.rearm(p)
		l.queue(p)
	}
}

// forget gives up a pair that is another engine's now. Its connections go on there, so
// they are closed here and nothing more.
func (l *loop) forget(c parcel) {
	p := l.find(c.reference)
	if p == nil {
		return
	}
	for s := range side(2) {
		l.release(&p.dir[s])
		if p.fd[s] >= 0 {
			unix.Close(int(p.fd[s]))
		}
	}
	l.count.handedOver++
	l.putBack(p)
}

// wireState describes p for the other side.
func (l *loop) wireState(p *pair) pairState {
	w := pairState{
		ID: p.id, Since: time.Unix(0, p.since), Client: p.clientAddr(), Destination: p.destinationAddr(),
		Step: p.step, State: stateNames[p.state], Opened: p.opened, Shared: p.shared, Cause: p.cause,
	}
	if x := l.extra(p); x != nil {
		w.Connected = x.connected
	}
	if p.listener >= 0 {
		w.Listener = l.engine.listenerState(int(p.listener))
	}
	for s := range side(2) {
		d := &p.dir[s]
		w.Directions[s] = directionState{
			Bytes: d.bytes, Messages: d.messages, Pending: int(d.pending),
			Pauses: d.pauses, PausedFor: time.Duration(d.stalledTicks(l.tick)) * tickLength,
			EOF: d.is(eof), FinSent: d.is(finSent), Ending: d.is(ending), Urgent: d.is(urgent), Buffered: d.is(buffered),
			Detached: d.is(detached), Closing: d.is(closing), Broken: p.broken[s], Throttled: d.is(throttled), Most: d.most,
		}
	}
	return w
}

// stopAccepting makes the listeners wait, or lets them go on.
func (l *loop) stopAccepting(stop bool) {
	l.leaving = stop
	if stop {
		l.holdListeners()
		return
	}
	for i := range l.listeners {
		l.listeners[i].ready = true
	}
	l.resumeListeners()
}
