package engine

import (
	"time"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/intercept"
)

// A pair that moves to another engine: how it is frozen, goes on here after all (resume), or begins
// in the other engine (takeIn), and what of it travels.

// frozenPair is a pair that is on its way to another engine.
type frozenPair struct {
	reference
	state state // before it was frozen
	handover.Pair
}

// movable reports whether there is a pair, and no handler sees its bytes.
func (l *loop) movable(p *pair) bool {
	return p.state != stateFree && p.state != stateHandingOff &&
		!p.dir[upstream].Is(pump.Handled) && !p.dir[downstream].Is(pump.Handled)
}

// freezeFrom freezes the next pairs from slot on, up to most; next is where to go on, or -1.
func (l *loop) freezeFrom(slot int32, most int) (batch []frozenPair, next int32) {
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

// freeze stops a pair: it has no events, no timer and no turn until resume, or end with
// ReasonHandedOver. Its record stays as it is, except that what was in pipes is in buffers.
func (l *loop) freeze(p *pair) (c frozenPair, err error) {
	c = frozenPair{reference: p.ref(), state: p.state}
	for s := range side(2) {
		d := &p.dir[s]
		if d.Is(pump.Moderated) {
			l.unmoderate(p, s) // the other side does not know
		}
		if err := d.EmptyPipe(&l.env); err != nil {
			return c, err
		}
	}
	c.Record = l.handoverRecord(p)
	for s := range side(2) {
		if fd := int(p.fd[s]); fd >= 0 {
			l.poller.Remove(fd)
			c.FDs = append(c.FDs, fd)
		}
		if d := &p.dir[s]; d.Pending > 0 {
			c.Pending[s] = d.AppendPending(&l.env, nil)
		}
	}
	l.wheel.disarm(&l.pairs, p)
	l.stopObserving(p)
	l.stopWaitingForFD(p)
	p.state, p.shared = stateHandingOff, true // with duplicates in the link, maybe for long
	return c, nil
}

// resume lets a frozen pair go on here.
func (l *loop) resume(c frozenPair) {
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
		l.observeAgain(p)
	}
}

// takeIn goes on with a pair where another engine stopped.
func (l *loop) takeIn(from handover.Pair) {
	l.count.takenOver++
	p := l.begin(from.FDs[incoming], from.Client)
	p.id = from.ID
	p.began -= int64(from.Duration)
	p.last -= ticks(from.Silent)
	if from.Destination.IsValid() {
		p.setDestination(from.Destination)
	}
	if from.Connected.IsValid() {
		l.attach(p, intercept.Decision{Destination: from.Connected})
	}
	p.listener = l.engine.listenerIndex(from.Listener)
	p.level, p.opened, p.cause = from.Step, from.Opened, from.Cause
	p.shared = true // until the old engine has closed its descriptors
	l.countSource(p)
	for s := range side(2) {
		d, was := &p.dir[s], &from.Directions[s]
		d.Resume(was.Bytes, was.Messages, was.Pauses, ticks(was.PausedFor))
		for _, c := range carriedFlags(was) {
			if *c.on {
				d.Set(c.flag)
			}
		}
		if was.Buffered { // for whatever reason
			d.RefusesSplice()
		}
		d.PendingLimit = was.Most
		d.Keep(&l.env, from.Pending[s])
	}
	if len(from.FDs) > int(outgoing) {
		p.fd[outgoing] = int32(from.FDs[outgoing])
	}
	p.state = stateOf(from.State)
	l.restart(p)
}

// handoverRecord describes p to the other engine.
func (l *loop) handoverRecord(p *pair) handover.Record {
	r := handover.Record{
		ID: p.id, Duration: l.age(p), Silent: time.Duration(l.tick-p.last) * tickLength, Client: p.clientAddr(), Destination: p.destinationAddr(),
		Step: p.level, State: p.state.name(), Opened: p.opened, Cause: p.cause,
	}
	if x := l.extra(p); x != nil {
		r.Connected = x.connected
	}
	if p.listener >= 0 {
		r.Listener = l.engine.handoverListener(int(p.listener))
	}
	for s := range side(2) {
		d, to := &p.dir[s], &r.Directions[s]
		*to = handover.Direction{
			Bytes: d.Bytes, Messages: d.Messages, Pauses: d.Pauses, PausedFor: time.Duration(d.StalledTicks(l.tick)) * tickLength,
			Buffered: d.Buffered(&l.env), Most: d.PendingLimit,
		}
		for _, c := range carriedFlags(to) {
			*c.on = d.Is(c.flag)
		}
	}
	return r
}

// carriedFlag is a flag of a direction that travels, and where.
type carriedFlag struct {
	flag pump.Flags
	on   *bool
}

func carriedFlags(d *handover.Direction) [10]carriedFlag {
	return [...]carriedFlag{
		{pump.EOF, &d.EOF}, {pump.FINCame, &d.FINCame}, {pump.FINSent, &d.FinSent}, {pump.Ending, &d.Ending}, {pump.Urgent, &d.Urgent},
		{pump.Detached, &d.Detached}, {pump.Closing, &d.Closing}, {pump.Broken, &d.Broken}, {pump.Throttled, &d.Throttled}, {pump.ACKHeld, &d.ACKHeld},
	}
}

// name is what the other engine calls the state of a pair that can move.
func (s state) name() handover.State {
	switch s {
	case stateWaiting:
		return handover.Waiting
	case stateConnecting:
		return handover.Connecting
	}
	return handover.Open
}

func stateOf(name handover.State) state {
	switch name {
	case handover.Waiting:
		return stateWaiting
	case handover.Connecting:
		return stateConnecting
	}
	return stateOpen
}

// listenerIndex is the index of the listener that the other engine names, or -1.
func (e *Engine) listenerIndex(name handover.Listener) int16 {
	for i := range e.addrs {
		if e.handoverListener(i) == name {
			return int16(i)
		}
	}
	return -1
}
