package engine

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
)

// handOverBatch is how many pairs leave a loop between two acknowledgements: few, because they
// stand still meanwhile and both processes hold their pending bytes.
const handOverBatch = 16

// HandOver gives the listeners and the live pairs to the engine of another process, which was made
// by TakeOver with the other end of conn, a stream socket of the Unix domain as socketpair(2) makes
// it. It waits until the other engine runs, then moves the pairs some at a time, with their
// descriptors and pending bytes. Connections notice a pause of well under a millisecond. Clients
// that connect meanwhile are accepted by this engine as far as the other one has descriptors for
// them; the others wait in the backlog, as all do in the last round. An observer is told of each
// pair that has left (ReasonHandedOver).
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
// When ctx is cancelled, HandOver fails with the cause, whether it waits for the other engine or
// pairs move. When all pairs have moved it is too late: HandOver succeeds. The other engine does
// not notice a cancelled context. It waits until failed ends it, or conn is closed.
//
// HandOver may be called from any goroutine, one call at a time. It fails without calling failed on
// a loop (ErrOnLoop), before Run (ErrNotRunning), after the end (ErrClosed), and while this engine
// itself still takes over. conn stays the caller's, who closes it when HandOver has returned: if it
// is closed or shut down before that, the other engine takes this process for dead and accepts.
// HandOver sets the deadlines of conn, and clears them when it returns.
func (e *Engine) HandOver(ctx context.Context, conn *net.UnixConn, failed func()) (left int, err error) {
	if err := e.runs(); err != nil {
		return 0, err
	}
	if e.takesOver() { // what is still on its way to us would be left behind
		return 0, errors.New("hand-over: still taking over from the process before")
	}
	link, err := handover.NewLink(conn)
	if err != nil {
		return 0, err
	}
	defer link.Within(ctx)()
	h := handOver{sender: handover.NewSender(link), engine: e}
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

// handOver is a hand-over under way, seen from the old engine. Package handover has the states of
// its sender, and of the pairs:
//
//	serving --freeze--> frozen --offer, commit--> released
//	   ^                   |
//	   +------resume-------+  on error
type handOver struct {
	sender *handover.Sender
	engine *Engine
	moved  int          // pairs that the new engine owns
	room   int          // for so many in all
	loop   *loop        // of the batch
	batch  []frozenPair // not committed
}

// run moves everything. After an error resume must follow.
func (h *handOver) run() error {
	if err := h.greet(); err != nil {
		return err
	}
	if err := h.awaitReady(); err != nil {
		return err
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
	return h.sender.Done()
}

// greet tells what we listen on. Both sides have the sockets from then on.
func (h *handOver) greet() (err error) {
	e := h.engine
	var sockets []handover.Socket
	e.ask(func(l *loop) {
		for _, ln := range l.listeners {
			fd, dupErr := unix.FcntlInt(uintptr(ln.fd), unix.F_DUPFD_CLOEXEC, 0) // the loop may close its own while we send
			if dupErr != nil {
				err = fmt.Errorf("hand-over: duplicate a listener: %w", dupErr)
				return
			}
			sockets = append(sockets, handover.Socket{Listener: e.handoverListener(ln.index), FD: fd})
		}
	})
	defer func() { handover.CloseSockets(sockets) }()
	if err != nil {
		return err
	}
	return h.sender.Greet(e.generation, e.movable(), sockets)
}

// awaitReady waits until the other engine runs, and keeps to the room that it has.
func (h *handOver) awaitReady() (err error) {
	if h.room, err = h.sender.AwaitReady(); err != nil {
		return err
	}
	h.engine.room.Store(min(h.engine.mostPairs(), int64(h.room)))
	if pairs := h.engine.movable(); pairs > h.room {
		return roomError(h.room, pairs)
	}
	return nil
}

// give moves the loop's pairs, a batch at a time: freeze, offer, commit.
func (h *handOver) give(l *loop) error {
	h.loop = l
	for slot := int32(0); slot >= 0; {
		l.ask(func(l *loop) { h.batch, slot = l.freezeFrom(slot, min(handOverBatch, h.room-h.moved)) })
		if len(h.batch) == 0 { // none is left, there is no room for more, or the loop has ended
			return nil
		}
		if err := h.offer(); err != nil {
			return err
		}
		err := ErrClosed
		l.ask(func(l *loop) { err = l.commit(h.sender, h.batch) })
		if err != nil {
			return err
		}
		h.moved += len(h.batch)
		h.batch = nil
	}
	return nil
}

// offer returns when the other engine holds the batch.
func (h *handOver) offer() error {
	pairs := make([]handover.Pair, len(h.batch))
	for i, c := range h.batch {
		pairs[i] = c.Pair
	}
	return h.sender.Offer(pairs)
}

// commit gives a batch away that the other side holds. It runs on the loop, because the loop may
// end frozen pairs (Close, the drain deadline): none of these may be committed, and no committed
// one may end here in any other way.
func (l *loop) commit(sender *handover.Sender, batch []frozenPair) error {
	for _, c := range batch {
		if l.find(c.reference) == nil {
			return ErrClosed
		}
	}
	if err := sender.Commit(); err != nil {
		return err
	}
	l.releaseHandedOff(batch)
	return nil
}

// releaseHandedOff closes this engine's descriptors of pairs that are the other one's.
func (l *loop) releaseHandedOff(batch []frozenPair) {
	l.engine.room.Add(-int64(len(batch))) // first, or listeners accept as many in their place
	for _, c := range batch {
		l.end(l.find(c.reference), ReasonHandedOver, nil)
	}
}

// resume lets the engine go on with what it still owns.
func (h *handOver) resume() {
	if h.loop != nil {
		h.loop.ask(func(l *loop) {
			for _, c := range h.batch {
				l.resume(c)
			}
		})
	}
	h.engine.room.Store(h.engine.mostPairs())
	h.engine.ask(func(l *loop) { l.stopAccepting(false) })
}

// handoverListener names a listener to the other engine.
func (e *Engine) handoverListener(index int) handover.Listener {
	return handover.Listener{Address: e.addrs[index], Mode: e.options.Listeners[index].Mode}
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
