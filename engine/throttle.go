package engine

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/flowcontrol"
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// This file samples for package flowcontrol, and applies its verdicts: it keeps the list of
// throttled flows. window.go and ceiling.go have the socket options.

// throttledFlow is a direction that stalled lately, or is or was throttled. It is on the loop's
// list as long as its pump has the flag Watched.
type throttledFlow struct {
	reference
	side side
	flow flowcontrol.Flow
}

// millis is the time since the loop's start.
func (l *loop) millis() uint32 { return uint32(l.now.Sub(l.start) / time.Millisecond) }

// flowState is what flowcontrol needs to know of a direction.
func flowState(d *pump.Pump) flowcontrol.State {
	return flowcontrol.State{
		Pending:    d.Pending,
		Throttled:  d.Is(pump.Throttled),
		Moderated:  d.Is(pump.Moderated),
		Stalled:    d.Is(pump.Stalled),
		HasStalled: d.Is(pump.HasStalled),
		EOF:        d.Is(pump.EOF),
	}
}

// sampleSink reads TCP_INFO of the direction's sink into l.sink, sampleSource that of its source
// into l.source. False: the socket is broken, and its own event tells of that.
func (l *loop) sampleSink(p *pair, s side) bool { return sock.TCPInfo(int(p.fd[s.other()]), &l.sink) }

func (l *loop) sampleSource(p *pair, s side) bool { return sock.TCPInfo(int(p.fd[s]), &l.source) }

// observeStall has a direction that stalls evaluated with each tick.
func (l *loop) observeStall(p *pair, s side) {
	if !p.dir[s].Is(pump.Watched) && l.sampleSink(p, s) {
		l.observe(p, s, flowcontrol.AfterStall(&l.sink, l.millis()))
	}
}

func (l *loop) observe(p *pair, s side, f flowcontrol.Flow) {
	p.dir[s].Set(pump.Watched)
	l.throttledFlows = append(l.throttledFlows, throttledFlow{p.ref(), s, f})
}

// observeAgain puts the throttled directions of a pair on the list again, after a freeze: the
// limits of their sockets have moved along, and only the list takes them off.
func (l *loop) observeAgain(p *pair) {
	for s := range side(2) {
		if p.dir[s].Is(pump.Throttled) && l.sampleSink(p, s) {
			l.observe(p, s, flowcontrol.AfterThrottle(&l.sink, l.millis()))
		}
	}
}

// stopObserving takes the directions of a pair that freezes off the list. The next tick would drop
// them, because the pair is not open, but would leave them Watched.
func (l *loop) stopObserving(p *pair) {
	if !p.dir[upstream].Is(pump.Watched) && !p.dir[downstream].Is(pump.Watched) {
		return
	}
	l.throttledFlows = slices.DeleteFunc(l.throttledFlows, func(t throttledFlow) bool {
		return t.reference == p.ref()
	})
	p.dir[upstream].Clear(pump.Watched)
	p.dir[downstream].Clear(pump.Watched)
}

// lookForQueue throttles the direction at once when a queue has built up behind its sink.
func (l *loop) lookForQueue(p *pair, s side) {
	d := &p.dir[s]
	if d.Is(pump.EOF) || !l.sampleSink(p, s) {
		return
	}
	state := flowState(d)
	rate := flowcontrol.QueueRate(&l.sink, state)
	if rate == 0 {
		return
	}
	if !d.Is(pump.Watched) {
		l.observe(p, s, flowcontrol.AfterThrottle(&l.sink, l.millis()))
	}
	switch flowcontrol.At(rate, state) {
	case flowcontrol.Throttle:
		if l.sampleSource(p, s) {
			l.limit(p, s, flowcontrol.LimitsAt(rate, 0, &l.sink, &l.source, l.mostTuned()))
		}
	case flowcontrol.Lift:
		l.lift(p, s)
	}
}

// throttle evaluates every direction on the list, once per tick.
func (l *loop) throttle() {
	keep := l.throttledFlows[:0]
	for _, t := range l.throttledFlows {
		if p := l.find(t.reference); p != nil && p.state == stateOpen && l.evaluate(p, &t) {
			keep = append(keep, t)
		}
	}
	l.throttledFlows = keep
}

// evaluate throttles a direction, or lifts the throttle. False: it is off the list.
func (l *loop) evaluate(p *pair, t *throttledFlow) bool {
	d := &p.dir[t.side]
	state := flowState(d)
	d.Clear(pump.HasStalled)
	if !l.sampleSink(p, t.side) {
		d.Clear(pump.Watched)
		return false
	}
	verdict, observe := t.flow.Evaluate(&l.sink, state, l.millis())
	switch verdict {
	case flowcontrol.Throttle:
		if l.sampleSource(p, t.side) {
			l.limit(p, t.side, t.flow.Limits(&l.sink, &l.source, l.mostTuned()))
		}
	case flowcontrol.Lift:
		l.lift(p, t.side)
	}
	if !observe {
		d.Clear(pump.Watched)
	}
	return observe
}

// limit throttles the direction. Invariant: l.source is a sample of its source.
func (l *loop) limit(p *pair, s side, limits flowcontrol.Limits) {
	d := &p.dir[s]
	d.Set(pump.Throttled)
	d.PendingLimit = uint32(min(limits.Unsent, int64(l.env.High)))
	setNotsentLowat(int(p.fd[s.other()]), int64(d.PendingLimit))
	l.holdWindow(int(p.fd[s]), limits)
	l.count.throttles++
}

// lift takes the throttle off.
func (l *loop) lift(p *pair, s side) {
	d := &p.dir[s]
	d.Clear(pump.Throttled)
	d.PendingLimit = 0
	l.backToCeiling(p, s)
}

// holdWindow has the source offer its other end the window of the limits, now or with the next
// calls. Invariant: l.source is a sample of it.
func (l *loop) holdWindow(fd int, limits flowcontrol.Limits) {
	b, ok := l.receiveBuffer(fd)
	if !ok {
		return
	}
	b.Unread = int64(sock.Unread(fd))
	setting := flowcontrol.Window(&l.source, b, limits)
	switch {
	case setting.Lock:
		lockReceiveBuffer(fd, setting.Buffer)
	case setting.Buffer > 0:
		setReceiveBuffer(fd, setting.Buffer)
	default:
		_ = unlockReceiveBuffer(fd)
	}
	setTCP(fd, unix.TCP_WINDOW_CLAMP, setting.Clamp)
}
