package engine

import (
	"math"

	"golang.org/x/sys/unix"
)

// rearm puts the pair on the wheel for the next thing that may time out, or takes
// it off when there is none.
func (l *loop) rearm(p *pair) {
	due, ok := l.due(p)
	if !ok {
		l.wheel.disarm(&l.pairs, p)
		return
	}
	l.wheel.arm(&l.pairs, p, due)
}

// due is the tick at which an open pair times out if nothing moves until then.
func (l *loop) due(p *pair) (tick uint32, ok bool) {
	o := &l.engine.options
	wait := uint32(math.MaxUint32)
	if _, broken := p.brokenSide(); broken {
		return p.last + ticks(resetPatience), true
	}
	if o.IdleTimeout > 0 {
		wait = ticks(o.IdleTimeout)
	}
	if o.HalfCloseTimeout > 0 && p.half() {
		wait = min(wait, ticks(o.HalfCloseTimeout))
	}
	return p.last + wait, wait != math.MaxUint32
}

// expired is called when a pair's due tick has come. Activity does not move timers,
// so most of them come too early, and are armed again.
func (l *loop) expired(p *pair) {
	switch p.state {
	case stateWaiting:
		l.dial(p)
	case stateConnecting:
		l.end(p, ReasonConnectTimeout, nil)
	case stateOpen:
		due, ok := l.due(p)
		_, broken := p.brokenSide()
		switch {
		case !ok:
		case int32(due-l.tick) > 0:
			l.wheel.arm(&l.pairs, p, due)
			if broken {
				l.queue(p)
			}
		case broken:
			l.end(p, ReasonReset, unix.Errno(p.cause))
		case l.halfCloseExpired(p):
			l.end(p, ReasonHalfCloseTimeout, nil)
		default:
			l.end(p, ReasonIdleTimeout, nil)
		}
	}
}

func (l *loop) halfCloseExpired(p *pair) bool {
	t := l.engine.options.HalfCloseTimeout
	return t > 0 && p.half() && int32(l.tick-p.last-ticks(t)) >= 0
}
