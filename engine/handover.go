package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
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

// HandOver gives the listeners and the live pairs to the engine of another process, which was
// made by TakeOver with the other end of fd, a stream socket of the Unix domain (blocking, as
// socketpair makes it). It waits until the other engine runs, then moves the pairs some at a
// time, with their descriptors and pending bytes. Connections notice a pause of well under a
// millisecond. Clients that connect meanwhile are accepted by this engine as far as the other one
// has descriptors for them; the others wait in the backlog, as all do in the last round. An
// observer is told of each pair that has left (ReasonHandedOver).
//
// Pairs of which a handler sees the bytes cannot move, because the handler's state is its own:
// left says how many stay. After success the engine closes its listeners and drains as if Run's
// context had been cancelled. Where the other process has too few descriptors for the pairs that
// can move, HandOver fails before any has moved.
//
// On error the engine goes on with all pairs that the other one does not own; the error says how
// many it owns. Before that, HandOver calls failed, if it is not nil, on its own goroutine: it
// ends the other process and waits for its end, so that never both accept. Pairs that had moved
// are reset then. At most a few pairs stand still until failed returns.
//
// fd stays the caller's. To end the wait, another goroutine may shut it down at any moment, best
// with SHUT_RD: with SHUT_RDWR the other engine takes this process for dead and begins to accept.
// One call at a time.
func (e *Engine) HandOver(fd int, failed func()) (left int, err error) {
	if err := e.runs(); err != nil {
		return 0, err
	}
	if e.takesOver() { // what is still on its way to us would be left behind
		return 0, errors.New("hand-over: still taking over from the process before")
	}
	h := handOver{link: link{fd}, engine: e}
	if err := h.run(); err != nil {
		if failed != nil {
			failed()
		}
		h.resume()
		if h.moved > 0 {
			err = fmt.Errorf("%w (after %d pairs had moved)", err, h.moved)
		}
		return 0, err
	}
	e.ask(func(l *loop) {
		l.discardListeners() // clients in their backlogs are served by the engine that has the same sockets
		l.drain()
		left += l.pairs.used
	})
	return left, nil
}

// handOver is a hand-over under way, seen from the old engine.
type handOver struct {
	link
	engine *Engine
	moved  int      // pairs that the new engine owns
	room   int      // for so many in all
	loop   *loop    // of the batch
	batch  []parcel // frozen, not committed
}

// run moves everything. After an error resume must follow.
func (h *handOver) run() error {
	if err := h.offerListeners(); err != nil {
		return err
	}
	f, err := h.expect(frameReady)
	if err != nil {
		return err
	}
	f.close()
	var ready readyState
	if err := f.parse(&ready); err != nil {
		return err
	}
	h.room = ready.Room
	h.engine.room.Store(min(h.engine.mostPairs(), int64(h.room)))
	if pairs := h.engine.movable(); pairs > h.room {
		return roomError(h.room, pairs)
	}
	for _, last := range []bool{false, true} {
		if last { // now those that were accepted during the first round
			h.engine.ask(func(l *loop) { l.stopAccepting(true) })
		}
		for _, l := range h.engine.loops {
			if err := h.give(l); err != nil {
				return err
			}
		}
	}
	if err := h.engine.runs(); err != nil {
		return err
	}
	return h.sendOnce(frameDone)
}

// resume lets the engine go on with what it still owns.
func (h *handOver) resume() {
	if h.loop != nil {
		h.loop.ask(func(l *loop) {
			for _, c := range h.batch {
				l.thaw(c)
			}
		})
	}
	h.engine.room.Store(h.engine.mostPairs())
	h.engine.ask(func(l *loop) { l.stopAccepting(false) })
}

// offerListeners tells what we listen on. Both sides have the sockets from then on.
func (h *handOver) offerListeners() (err error) {
	e := h.engine
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
	if err := h.send(frameHello, helloState{wireVersion, e.generation, len(sockets), e.movable()}, nil); err != nil {
		return err
	}
	for _, s := range sockets {
		if err := h.send(frameListener, s.listenerState, []int{s.fd}); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) listenerState(index int) listenerState {
	return listenerState{e.addrs[index], e.options.Listeners[index].Mode}
}

// movable is how many pairs can move.
func (e *Engine) movable() (pairs int) {
	e.ask(func(l *loop) {
		for slot := range l.pairs.size() {
			if l.movable(l.pairs.at(slot)) {
				pairs++
			}
		}
	})
	return pairs
}

// ask runs f on every loop that still runs, one after the other.
func (e *Engine) ask(f func(*loop)) {
	for _, l := range e.loops {
		l.ask(f)
	}
}

// give moves the loop's pairs.
func (h *handOver) give(l *loop) error {
	h.loop = l
	for slot := int32(0); slot >= 0; {
		l.ask(func(l *loop) { h.batch, slot = l.freezeFrom(slot, min(handOverBatch, h.room-h.moved)) })
		if len(h.batch) == 0 { // none is left, there is no room for more, or the loop has ended
			return nil
		}
		if err := h.offer(h.batch); err != nil {
			return err
		}
		err := ErrClosed
		l.ask(func(l *loop) { err = l.commit(h.link, h.batch) })
		if err != nil {
			return err
		}
		h.moved += len(h.batch)
		h.batch = nil
	}
	return nil
}

// offer sends a batch, and returns when the other side holds all of it.
func (k link) offer(batch []parcel) error {
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

// commit gives a batch away that the other side holds. It runs on the loop, because the loop may
// end frozen pairs (Close, the drain deadline): none of these may be committed, and no committed
// one may end here in any other way. The link has room for the commit, as the other side has read
// everything before its acknowledgement.
func (l *loop) commit(k link, batch []parcel) error {
	for _, c := range batch {
		if l.find(c.reference) == nil {
			return ErrClosed
		}
	}
	if err := k.sendOnce(frameCommit); err != nil {
		return err
	}
	l.engine.room.Add(-int64(len(batch))) // first, or listeners accept as many in their place
	for _, c := range batch {
		l.end(l.find(c.reference), ReasonHandedOver, nil)
	}
	return nil
}

// freezeFrom freezes the next pairs from slot on, up to most; next is where to go on, or -1.
func (l *loop) freezeFrom(slot int32, most int) (batch []parcel, next int32) {
	for ; slot < l.pairs.size(); slot++ {
		if len(batch) >= most {
			return batch, slot
		}
		if p := l.pairs.at(slot); l.movable(p) {
			if c, err := l.freeze(p); err == nil {
				batch = append(batch, c)
			} else {
				l.end(p, ReasonReset, err)
			}
		}
	}
	return batch, -1
}

// movable: there is a pair, and no handler that has not let go yet.
func (l *loop) movable(p *pair) bool {
	return p.state != stateFree && p.state != stateLeaving && !p.dir[upstream].Is(pump.Handled) && !p.dir[downstream].Is(pump.Handled)
}

// freeze stops a pair: it has no events, no timer and no turn until thaw, or end with
// ReasonHandedOver. Its record stays as it is, except that what was in pipes is in buffers.
func (l *loop) freeze(p *pair) (c parcel, err error) {
	c = parcel{reference: reference{p.slot, p.generation}, state: p.state}
	for s := range side(2) {
		d := &p.dir[s]
		if d.Is(pump.Moderated) {
			l.unmoderate(p, s) // the other side does not know
		}
		if err := d.EmptyPipe(&l.env); err != nil {
			return c, err
		}
	}
	c.wire = l.wireState(p)
	for s := range side(2) {
		if fd := int(p.fd[s]); fd >= 0 {
			l.poller.Remove(fd)
			c.fds = append(c.fds, fd)
		}
		if d := &p.dir[s]; d.Pending > 0 {
			c.body = append(c.body, d.AppendPending(&l.env, nil))
		}
	}
	l.wheel.disarm(&l.pairs, p)
	l.unwatch(p)
	l.stopWaitingForFD(p)
	p.state, p.shared = stateLeaving, true // with duplicates in the link, maybe for long
	return c, nil
}

// thaw lets a frozen pair go on.
func (l *loop) thaw(c parcel) {
	p := l.find(c.reference)
	if p == nil {
		return
	}
	p.state = c.state
	l.restart(p)
}

// restart registers a pair's flows and lets it go on, here or in the engine that took it. The
// flags say what was known when it stopped; the rest is found out by trying.
func (l *loop) restart(p *pair) {
	for s := range side(2) {
		if fd := int(p.fd[s]); fd >= 0 {
			if err := l.poller.Add(fd, p.token(s)); err != nil {
				l.end(p, ReasonReset, err)
				return
			}
		}
		p.dir[s].MayRead()
		if p.state == stateOpen {
			p.dir[s].MayWrite()
		}
	}
	switch p.state {
	case stateWaiting:
		p.state = stateConnecting
		l.waitForFD(p)
	case stateConnecting:
		l.armConnect(p)
	case stateOpen:
		l.rearm(p)
		l.queue(p)
		l.rewatch(p)
	}
}

// unwatch takes the directions of a pair off the throttle's list, which passes over pairs that
// are not open and drops them.
func (l *loop) unwatch(p *pair) {
	if !p.dir[upstream].Is(pump.Watched) && !p.dir[downstream].Is(pump.Watched) {
		return
	}
	l.watches = slices.DeleteFunc(l.watches, func(w watch) bool { return w.reference == reference{p.slot, p.generation} })
	p.dir[upstream].Clear(pump.Watched)
	p.dir[downstream].Clear(pump.Watched)
}

// rewatch puts throttled directions on the list again, as if the throttle had just begun. The
// settings of their sockets have moved along, and only the list takes them off.
func (l *loop) rewatch(p *pair) {
	for s := range side(2) {
		switch {
		case !p.dir[s].Is(pump.Throttled):
		case l.engine.options.NoFlowControl: // as the engine before this one was not told to
			l.lift(p, s)
		case l.tcpInfo(int(p.fd[s.other()])):
			l.watch(p, s, calmAfter/2)
		}
	}
}

// wireState describes p for the other side.
func (l *loop) wireState(p *pair) pairState {
	w := pairState{
		ID: p.id, Duration: l.age(p), Silent: time.Duration(l.tick-p.last) * tickLength, Client: p.clientAddr(), Destination: p.destinationAddr(),
		Step: p.level, State: stateNames[p.state], Opened: p.opened, Cause: p.cause,
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
			Bytes: d.Bytes, Messages: d.Messages, Pending: int(d.Pending),
			Pauses: d.Pauses, PausedFor: time.Duration(d.StalledTicks(l.tick)) * tickLength,
			EOF: d.Is(pump.EOF), FINCame: d.Is(pump.FINCame), FinSent: d.Is(pump.FINSent), Ending: d.Is(pump.Ending), Urgent: d.Is(pump.Urgent), Buffered: d.Buffered(&l.env),
			Detached: d.Is(pump.Detached), Closing: d.Is(pump.Closing), Broken: d.Is(pump.Broken), Throttled: d.Is(pump.Throttled), Most: d.PendingLimit,
			ACKHeld: d.Is(pump.ACKHeld),
		}
	}
	return w
}

// stopAccepting makes the listeners wait, or lets them go on.
func (l *loop) stopAccepting(stop bool) {
	l.holding = stop
	if stop {
		l.holdListeners()
		return
	}
	for i := range l.listeners {
		l.listeners[i].ready = true
	}
	l.resumeListeners()
}
