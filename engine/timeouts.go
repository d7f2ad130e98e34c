package engine

import (
	"math"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// Timers that end a pair measure silence. A pair is silent while nothing is read, written or
// acknowledged by either end, and neither end opens its window. A receiver that takes 6 KB/s out
// of a full buffer is slow, not silent, although the relay has nothing to do.
//
// The loop's own reads and writes note the tick in the record, and cost nothing more. What
// the kernel does by itself is looked up when a timer is about to fire, by TCP_INFO: four
// times per timeout, so that a pair whose last sign of life cannot be dated exactly ends at
// most a quarter of its timeout late.
//
//	timer               ends a pair that is silent for so long and ...
//	IdleTimeout         (no more conditions)
//	HalfCloseTimeout    has passed on a FIN, and both ends have acknowledged all that was
//	                    sent, the FIN too: the relay waits only for an end that is silent
//
// While bytes or a FIN wait for a receiver that has stopped reading, the half-close timer does not
// run. That receiver's kernel answers probes. When it no longer does, the kernel ends the
// connection (TCP_USER_TIMEOUT, net.ipv4.tcp_retries2).

// looks is how many times per timeout a silent pair is looked at.
const looks = 4

// rearm puts the pair on the wheel for the next look, or takes it off when it has no timer.
func (l *loop) rearm(p *pair) {
	if _, broken := p.brokenSide(); broken {
		l.wheel.arm(&l.pairs, p, l.tick+1)
		return
	}
	if limit := l.shortest(p); limit != 0 {
		l.wheel.arm(&l.pairs, p, p.last+quarter(limit))
		return
	}
	l.wheel.disarm(&l.pairs, p)
}

// shortest is the shortest timeout, in ticks, that may end the pair as it is now; 0: none.
func (l *loop) shortest(p *pair) uint32 {
	o := &l.engine.options
	limit := uint32(math.MaxUint32)
	if o.IdleTimeout > 0 {
		limit = ticks(o.IdleTimeout)
	}
	if o.HalfCloseTimeout > 0 && p.half() {
		limit = min(limit, ticks(o.HalfCloseTimeout))
	}
	if limit == math.MaxUint32 {
		return 0
	}
	return limit
}

func quarter(limit uint32) uint32 { return max(limit/looks, 1) }

// expired is called when a pair's due tick has come. Activity does not move timers, so most
// of them come too early, and are armed again.
func (l *loop) expired(p *pair) {
	switch p.state {
	case stateWaiting:
		if l.connectExpired(p) {
			l.end(p, ReasonConnectTimeout, unix.EMFILE)
			return
		}
		l.dial(p)
	case stateConnecting:
		l.end(p, ReasonConnectTimeout, nil)
	case stateOpen:
		if _, broken := p.brokenSide(); broken {
			l.queue(p) // for passReset
			return
		}
		l.expiredOpen(p)
	}
}

// expiredOpen ends an open pair that has been silent for too long, or arms its next look.
func (l *loop) expiredOpen(p *pair) {
	limit := l.shortest(p)
	if limit == 0 {
		return
	}
	next := p.last + quarter(limit)
	if int32(next-l.tick) <= 0 {
		waits := l.look(p)
		o := &l.engine.options
		silent := l.tick - p.last
		switch {
		case o.HalfCloseTimeout > 0 && p.half() && !waits && silent >= ticks(o.HalfCloseTimeout):
			l.end(p, ReasonHalfCloseTimeout, nil)
			return
		case o.IdleTimeout > 0 && silent >= ticks(o.IdleTimeout):
			l.end(p, ReasonIdleTimeout, nil)
			return
		}
		next = l.tick + quarter(limit)
		if due := p.last + limit; int32(due-l.tick) > 0 && int32(next-due) > 0 {
			next = due
		}
	}
	l.wheel.arm(&l.pairs, p, next)
}

// look asks the kernel what has happened on both flows since the last look. If something
// has, it is activity as of the last segment that either end sent us. It reports whether
// bytes or a FIN wait for one of the ends.
func (l *loop) look(p *pair) (waits bool) {
	var seen, recent uint32 = 0, math.MaxUint32
	for s := range side(2) {
		waits = waits || p.dir[s].Pending > 0
		if !l.tcpInfo(int(p.fd[s])) {
			continue // it is broken, and an event says so
		}
		i := &l.tcp
		waits = waits || i.Unacked > 0 || i.Notsent_bytes > 0
		seen = bits.RotateLeft32(seen, 1) + uint32(i.Bytes_acked+i.Bytes_received) + i.Snd_wnd*2654435761
		recent = min(recent, i.Last_ack_recv, i.Last_data_recv)
	}
	if seen != p.seen {
		p.seen = seen
		if at := l.tick - uint32(time.Duration(recent)*time.Millisecond/tickLength); int32(at-p.last) > 0 {
			p.last = at
		}
	}
	return waits
}

// resetPatience is how long, in ticks, a sink may acknowledge nothing before a reset that
// waits behind its bytes is passed on without them.
func (l *loop) resetPatience() uint32 {
	if t := l.engine.options.HalfCloseTimeout; t > 0 {
		return ticks(t)
	}
	return ticks(DefaultHalfCloseTimeout)
}

// passReset ends a pair whose flow s is broken, as soon as the other end has all that came from
// it. An RST overtakes what is in the sink's send buffer, so the relay waits until the buffer is
// empty. It polls for that: no event says that the last byte is acknowledged, and the event for
// room in the buffer comes when a third of it is free. While the receiver makes no progress, looks
// become rarer, up to one in half a second.
func (l *loop) passReset(p *pair, s side) {
	n := uint32(sock.Unsent(int(p.fd[s.other()])))
	if n != p.unacked {
		p.unacked = n
		p.last = l.tick
	}
	silent := l.tick - p.last
	if n == 0 && p.dir[s].Drained() || silent >= l.resetPatience() {
		l.end(p, ReasonReset, unix.Errno(p.cause))
		return
	}
	l.wheel.arm(&l.pairs, p, l.tick+min(max(silent/looks, 1), 5))
}
