package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/chunks"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
)

// The path of a direction whose bytes a handler wants to see.

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
	*x = pairExtra{
		handlers:  [2]intercept.Handler{d.Upstream, d.Downstream},
		held:      [2]chunks.ID{-1, -1},
		connected: d.Destination,
	}
	l.sideTable[p.slot] = x
	p.hasExtra = true
	for s := range side(2) {
		if x.handlers[s] != nil {
			p.dir[s].set(handled | buffered)
		}
	}
}

// readHandled reads behind what the handler holds back and shows it both.
func (l *loop) readHandled(p *pair, s side, room int) (int, bool) {
	d := &p.dir[s]
	x := l.extra(p)
	kept := 0
	if x.held[s] >= 0 {
		kept = len(l.buffers.AppendTo(l.scratch[:0], x.held[s])) // there is room for MaxHold
	}
	n, alive := l.receive(p, s, l.scratch[kept:kept+min(room, l.readSize(d))])
	if !alive || n == 0 && !d.is(eof) {
		return 0, alive
	}
	if x.held[s] >= 0 {
		l.dropHeld(x, s)
	}
	return n, l.show(p, s, x, l.scratch[:kept+n])
}

// show lets the handler see data and does what it says. False: the pair has ended.
func (l *loop) show(p *pair, s side, x *pairExtra, data []byte) bool {
	d := &p.dir[s]
	c := &l.chunk
	c.Reset(data, d.is(eof))
	c.Cut = c.End && p.cutOff(s)
	verdict, err := l.callHandle(p, x.handlers[s], c)
	if err != nil {
		l.chunk = intercept.Chunk{} // the handler may have kept it
		l.end(p, ReasonPanicked, err)
		return false
	}
	if verdict >= intercept.Reset { // also what is no verdict at all
		l.end(p, ReasonIntercepted, nil)
		return false
	}
	if verdict == intercept.Hold && !c.End {
		if len(c.Data) > intercept.MaxHold {
			l.end(p, ReasonIntercepted, unix.E2BIG)
			return false
		}
		l.holdBack(p, s, c.Data)
		c.Data = nil
	}
	out := output(c)
	if !l.deliver(p, s, out) {
		return false
	}
	if cap(out) > 4*scratchSize {
		l.chunk = intercept.Chunk{} // a handler that once blew up its bytes must not keep the memory
	}
	switch verdict {
	case intercept.Detach:
		d.clear(handled | buffered)
		d.set(detached)
		if o := &l.engine.options; o.NoSplice || o.NoFlowControl || d.is(urgent) {
			d.set(buffered)
		}
	case intercept.Close:
		p.dir[upstream].set(closing)
		p.dir[downstream].set(closing)
		l.queue(p) // the other direction may have had its turn
	}
	return true
}

// output is what a handler sends on: what it wrote, and the chunk's data behind.
func output(c *intercept.Chunk) []byte {
	if len(c.Written()) == 0 {
		return c.Data
	}
	_, _ = c.Write(c.Data)
	return c.Written()
}

// sayLast lets the handlers of a pair that is about to be reset, and not by a handler's own
// decision, send on what they hold back. The sink gets as much of it as it takes at once.
func (l *loop) sayLast(p *pair) {
	x := l.extra(p)
	if x == nil || p.state != stateOpen {
		return
	}
	for s := range side(2) {
		d := &p.dir[s]
		if !d.is(handled) || d.is(eof|closing) || d.pending > 0 {
			continue // it was told before, or cannot say anything
		}
		held := l.scratch[:0]
		if x.held[s] >= 0 {
			held = l.buffers.AppendTo(held, x.held[s])
		}
		c := &l.chunk
		c.Reset(held, true)
		c.Cut = true
		if verdict, err := l.callHandle(p, x.handlers[s], c); err != nil || verdict >= intercept.Reset {
			l.chunk = intercept.Chunk{} // the handler may have kept it
			return
		}
		if out := output(c); len(out) > 0 {
			if n, err := sock.Send(int(p.fd[s.other()]), out, false); err == nil {
				l.noteDelivered(p, s, n)
			}
		}
	}
}

// holdBack keeps data for the handler's next chunk.
func (l *loop) holdBack(p *pair, s side, data []byte) {
	if len(data) == 0 {
		return
	}
	x := l.extra(p)
	id := l.buffers.Get()
	l.buffers.Append(id, data)
	l.count.memory += int64(l.buffers.Size(id))
	l.count.pending += int64(len(data))
	x.held[s] = id
}

// dropHeld gives the buffer of held bytes back.
func (l *loop) dropHeld(x *pairExtra, s side) {
	id := x.held[s]
	l.count.memory -= int64(l.buffers.Size(id))
	l.count.pending -= int64(l.buffers.Len(id))
	l.buffers.Put(id)
	x.held[s] = -1
}
