package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Pairs of the model leave their loop as for another engine, stand still for as long as
// chance wants, and arrive: on the same loop, which does not know them any more.

// modelParcel is a pair that has left.
type modelParcel struct {
	pair *modelPair
	parcel
}

// leave freezes a pair that can go.
func (w *modelWorld) leave(p *modelPair) error {
	live := w.find(p.ref)
	if live == nil || !w.movable(live) {
		return nil
	}
	c, err := w.freeze(live)
	if err != nil {
		return err
	}
	w.leaving = append(w.leaving, modelParcel{p, c})
	return nil
}

// stay lets the pair at i go on where it was: the other side has not taken it.
func (w *modelWorld) stay(i int) {
	c := w.leaving[i]
	w.leaving = append(w.leaving[:i], w.leaving[i+1:]...)
	w.thaw(c.parcel)
}

// arrive brings the pair at i over, through a real socket.
func (w *modelWorld) arrive(i int) error {
	c := w.leaving[i]
	w.leaving = append(w.leaving[:i], w.leaving[i+1:]...)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	sent := make(chan error)
	go func() { sent <- link{ends[0]}.send(framePair, c.wire, c.fds, c.body...) }()
	f, err := link{ends[1]}.receive()
	if err := errors.Join(<-sent, err); err != nil {
		return err
	}
	state, err := f.pair()
	if err != nil {
		f.close()
		return err
	}
	w.end(w.find(c.reference), ReasonHandedOver, nil)
	if w.find(c.pair.ref) != nil {
		return fmt.Errorf("pair %d was forgotten, and is there", c.pair.id)
	}
	w.engine.active.Add(1)
	w.takeIn(state, f.fds, f.body)
	for slot := range w.loop.pairs.size() {
		if live := w.loop.pairs.at(slot); live.state != stateFree && live.id == c.pair.id {
			c.pair.ref = reference{live.slot, live.generation}
			return nil
		}
	}
	return fmt.Errorf("pair %d has not arrived", c.pair.id)
}
