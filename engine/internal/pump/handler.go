package pump

import (
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
)

// The path of a pump whose bytes a handler sees.

// readHandled reads behind what the handler holds back and shows it both.
func (d *Pump) readHandled(t *turn, room int) (int, bool) {
	kept := len(t.Tap.appendHeld(t.Env, t.scratch[:0])) // there is room for MaxHold
	n := d.receive(t, t.scratch[kept:kept+min(room, d.readSize(t))])
	if n == 0 && !d.Is(EOF) {
		return 0, true
	}
	t.Tap.Drop(t.Env)
	return n, d.show(t, t.scratch[:kept+n])
}

// Show lets the handler see data that did not come from the source.
func (d *Pump) Show(e *Env, ends Ends, data []byte) Result {
	t := turn{Env: e, Ends: ends}
	d.show(&t, data)
	return t.result
}

// show lets the handler see data and does what it says. False: the turn is over.
func (d *Pump) show(t *turn, data []byte) bool {
	c := &t.chunk
	c.Reset(data, d.Is(EOF))
	c.Cut = c.End && d.CutOff()
	verdict := t.Tap.Handler.Handle(c)
	if verdict >= intercept.Reset { // also what is no verdict at all
		t.chunk = intercept.Chunk{} // the handler may have kept it
		t.note(HandlerReset)
		return false
	}
	if verdict == intercept.Hold && !c.End {
		if len(c.Data) > intercept.MaxHold {
			t.note(HandlerReset | HeldTooMuch)
			return false
		}
		t.Tap.hold(t.Env, c.Data)
		c.Data = nil
	}
	out := output(c)
	if !d.deliver(t, out) {
		return false
	}
	if cap(out) > 4*maxRead {
		t.chunk = intercept.Chunk{} // a handler that once blew up its bytes must not keep the memory
	}
	switch verdict {
	case intercept.Detach:
		d.Clear(Handled)
		d.Set(Detached)
	case intercept.Close:
		d.Set(Closing)
		t.note(HandlerClosed)
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

// SayLast lets the handler of a pair that is about to be reset, and not by a handler's own
// decision, send on what it holds back. The sink gets as much of it as it takes at once.
func (d *Pump) SayLast(e *Env, ends Ends) Result {
	t := turn{Env: e, Ends: ends}
	if !d.Is(Handled) || d.Is(EOF|Closing) || d.Pending > 0 {
		return t.result // it was told before, or cannot say anything
	}
	c := &t.chunk
	c.Reset(t.Tap.appendHeld(e, t.scratch[:0]), true)
	c.Cut = true
	if verdict := t.Tap.Handler.Handle(c); verdict >= intercept.Reset {
		t.chunk = intercept.Chunk{} // the handler may have kept it
		t.note(HandlerReset)
		return t.result
	}
	if out := output(c); len(out) > 0 {
		if n, err := sock.Send(t.Sink, out, false); err == nil {
			d.noteDelivered(&t, n)
		}
	}
	return t.result
}

// hold keeps data for the handler's next chunk.
func (x *Tap) hold(e *Env, data []byte) {
	if len(data) == 0 {
		return
	}
	x.held = e.Queues.Get()
	e.Queues.Append(x.held, data)
	e.Budget.Used += int64(e.Queues.Size(x.held))
	e.Count.Pending += int64(len(data))
}

// Held is how many bytes the handler holds back.
func (x *Tap) Held(e *Env) int {
	if x.held < 0 {
		return 0
	}
	return e.Queues.Len(x.held)
}

// appendHeld appends a copy of what the handler holds back to b.
func (x *Tap) appendHeld(e *Env, b []byte) []byte {
	if x.held < 0 {
		return b
	}
	return e.Queues.AppendTo(b, x.held)
}

// Drop returns the queue of held bytes, if there is one.
func (x *Tap) Drop(e *Env) {
	if x.held < 0 {
		return
	}
	e.Budget.Used -= int64(e.Queues.Size(x.held))
	e.Count.Pending -= int64(e.Queues.Len(x.held))
	e.Queues.Put(x.held)
	x.held = -1
}
