package engine

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/intercept"
)

// The side table has what needs pointers, for the pairs that have it: their records are kept free
// of them.

// pairExtra is what a pair needs beyond its record: handlers, with what they hold back, and the
// destination if it was changed.
type pairExtra struct {
	guards    [2]guard
	taps      [2]pump.Tap
	connected netip.AddrPort
}

// extra is the side table's entry of p, or nil.
func (l *loop) extra(p *pair) *pairExtra {
	if !p.hasExtra {
		return nil
	}
	return l.sideTable[p.slot]
}

// attach notes what an interceptor decided.
func (l *loop) attach(p *pair, d intercept.Decision) {
	if d.Upstream == nil && d.Downstream == nil && !d.Destination.IsValid() {
		return
	}
	for int(p.slot) >= len(l.sideTable) {
		l.sideTable = append(l.sideTable, nil)
	}
	var x *pairExtra
	if n := len(l.freeExtras); n > 0 {
		x = l.freeExtras[n-1]
		l.freeExtras = l.freeExtras[:n-1]
	} else {
		x = new(pairExtra)
	}
	x.connected = d.Destination
	l.sideTable[p.slot] = x
	p.hasExtra = true
	for s, h := range [2]intercept.Handler{d.Upstream, d.Downstream} {
		x.guards[s] = guard{loop: l, pair: p.id, handler: h}
		x.taps[s] = pump.NewTap(&x.guards[s])
		if h != nil {
			p.dir[s].Set(pump.Handled)
		}
	}
}

// detachAll lets go of the entry, and gives the handlers back, which are to be closed.
func (l *loop) detachAll(p *pair) (handlers intercept.Decision) {
	x := l.extra(p)
	if x == nil {
		return handlers
	}
	for s := range x.taps {
		x.taps[s].Drop(&l.env)
	}
	handlers = intercept.Decision{Upstream: x.guards[upstream].handler, Downstream: x.guards[downstream].handler}
	*x = pairExtra{}
	l.sideTable[p.slot] = nil
	l.freeExtras = append(l.freeExtras, x)
	return handlers
}

// guard is a handler that cannot harm the loop: a panic becomes intercept.Reset, and an error.
type guard struct {
	loop    *loop
	pair    uint64
	handler intercept.Handler
	err     error
}

func (g *guard) Handle(c *intercept.Chunk) intercept.Verdict {
	v, err := g.loop.callHandle(g.pair, g.handler, c)
	if err != nil {
		g.err = err
		return intercept.Reset
	}
	return v
}

// endedByHandler ends a pair whose handler wants it reset, or has panicked.
func (l *loop) endedByHandler(p *pair, s side, r *pump.Result) {
	switch err := l.extra(p).guards[s].err; {
	case err != nil:
		l.end(p, ReasonPanicked, err)
	case r.Has(pump.HeldTooMuch):
		l.end(p, ReasonIntercepted, unix.E2BIG)
	default:
		l.end(p, ReasonIntercepted, nil)
	}
}

// sayLast lets the handlers of a pair that is about to be reset, and not by a handler's own
// decision, send on what they hold back.
func (l *loop) sayLast(p *pair) {
	if l.extra(p) == nil || p.state != stateOpen {
		return
	}
	for s := range side(2) {
		r := p.dir[s].SayLast(&l.env, l.ends(p, s))
		l.noteDelivered(p, s, &r)
		if r.Has(pump.HandlerReset) {
			return
		}
	}
}
