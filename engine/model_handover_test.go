package engine

import (
	"errors"
	"fmt"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
)

// Pairs of the model leave their loop as for another engine, stand still for a random
// time, and arrive: on the same loop, which does not know them any more.

// modelFrozen is a pair that has left.
type modelFrozen struct {
	pair *modelPair
	frozenPair
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
	w.handingOff = append(w.handingOff, modelFrozen{p, c})
	return nil
}

// stay lets the pair at i go on where it was: the other side has not taken it.
func (w *modelWorld) stay(i int) {
	c := w.handingOff[i]
	w.handingOff = append(w.handingOff[:i], w.handingOff[i+1:]...)
	w.resume(c.frozenPair)
}

// arrive brings the pair at i over, through a real socket.
func (w *modelWorld) arrive(i int) error {
	c := w.handingOff[i]
	w.handingOff = append(w.handingOff[:i], w.handingOff[i+1:]...)
	arrived, err := carryOver(c.Pair)
	if err != nil {
		return err
	}
	w.end(w.find(c.reference), ReasonHandedOver, nil)
	if w.find(c.pair.ref) != nil {
		return fmt.Errorf("pair %d was handed off, and is there", c.pair.id)
	}
	w.engine.active.Add(1)
	w.takeIn(arrived)
	for slot := range w.loop.pairs.size() {
		if live := w.loop.pairs.at(slot); live.state != stateFree && live.id == c.pair.id {
			c.pair.ref = live.ref()
			return nil
		}
	}
	return fmt.Errorf("pair %d has not arrived", c.pair.id)
}

// carryOver sends a pair through a link.
func carryOver(p handover.Pair) (arrived handover.Pair, err error) {
	old, new, err := handovertest.Pair()
	if err != nil {
		return arrived, err
	}
	defer old.Close()
	defer new.Close()
	to, err := handover.NewLink(old)
	if err != nil {
		return arrived, err
	}
	from, err := handover.NewLink(new)
	if err != nil {
		return arrived, err
	}
	sent := make(chan error)
	go func() { sent <- to.SendPair(p) }()
	f, err := from.Receive()
	if err := errors.Join(<-sent, err); err != nil {
		return arrived, err
	}
	if arrived, err = f.Pair(); err != nil {
		f.Close()
	}
	return arrived, err
}
