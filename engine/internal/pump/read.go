package pump

import (
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

const (
	// maxRead is the most that one read takes into user space, from a source at full speed.
	maxRead = 512 << 10
	// usualRead is the most that it takes from others: what the sink does not take of it has
	// to be copied once more.
	usualRead = 64 << 10
	// smallRead is the most that a spliced pump reads through the scratch buffer. When that
	// much comes at once, splice takes over.
	smallRead = 16 << 10
)

// read takes up to room bytes from the source, on the path that the pump is on. False: the turn
// is over.
//
// Invariant: every read either takes bytes, or clears the Readable latch, or sets EOF or Full, or
// leaves the path for another. So a turn comes to an end.
func (d *Pump) read(t *turn, room int) (n int, ok bool) {
	switch {
	case d.inPipe() && (d.Buffered(t.Env) || d.Is(Closing)):
		d.Set(Full) // the pipe was in use before; what is in it goes first
		return 0, true
	case d.Is(Closing):
		return d.drainDiscard(t), true
	case d.Is(Handled):
		return d.readHandled(t, room)
	case d.Buffered(t.Env):
		return d.readBuffered(t, min(room, d.readSize(t)))
	}
	return d.readSpliced(t, room)
}

// receive reads into b. For the result see noteReceive.
func (d *Pump) receive(t *turn, b []byte) int {
	n, err := sock.Recv(t.Source, b)
	if n = d.noteReceive(t, n, err); n > 0 {
		d.noteRead(n, len(b))
	}
	return n
}

// readSpliced takes bytes that nobody looks at. Few bytes that can go on at once pass through the
// scratch buffer, because two system calls on two sockets cost less than two on sockets and a
// pipe. Bulk, and whatever must stay behind, goes through a pipe.
func (d *Pump) readSpliced(t *turn, room int) (int, bool) {
	switch {
	case d.Pending > 0 && !d.inPipe():
		d.Set(Full) // what waits in a queue goes first
		return 0, true
	case d.Pending == 0 && d.Is(Writable) && !d.Is(Bulk):
		return d.readBuffered(t, min(room, smallRead))
	case d.Pending == 0:
		if !d.borrow(t.Env) {
			return d.readBuffered(t, min(room, d.readSize(t)))
		}
	}
	if t.Interactive {
		room = min(room, TurnBudget) // a large pipe takes more at once
	}
	n, st, err := d.pipe(t.Env).Fill(t.Source, room)
	t.Count.Splices++
	switch st {
	case splice.Moved:
		d.Pending += uint32(n)
		t.Count.Pending += int64(n)
		return n, true
	case splice.Empty:
		t.Count.SourceEmpty++
		d.cannotRead()
	case splice.Full:
		t.Count.PipeFull++
		d.Set(Full)
	case splice.End:
		if d.Pending > 0 {
			d.Set(Full) // asked again when the pipe is empty
			return 0, true
		}
		// It may also be urgent data with a FIN behind, at which splice(2) sticks. Only recv
		// tells.
		d.Release(t.Env)
		return d.readBuffered(t, min(room, smallRead))
	case splice.Refused:
		t.Count.SpliceRefused++
		d.RefusesSplice()
	case splice.Failed:
		t.sourceFailed(d, err)
	}
	if d.Pending == 0 {
		d.Release(t.Env)
	}
	return 0, true
}

// readBuffered takes up to asked bytes through the scratch buffer. What the sink does not take
// waits in a queue.
func (d *Pump) readBuffered(t *turn, asked int) (int, bool) {
	if d.Is(DelayACK) {
		sock.DelayACK(t.Source)
	}
	n := d.receive(t, t.scratch[:asked])
	if n == 0 {
		return 0, true
	}
	if n >= smallRead {
		d.Set(Bulk)
		if !d.Is(Metered) && !t.Unbounded {
			t.note(BrokenOff) // each read makes the kernel enlarge the source's buffer
		}
	}
	if n < asked && d.flags&(Ending|Urgent) == Ending {
		// The FIN, if it is here, goes with the last bytes in one segment.
		n += d.receive(t, t.scratch[n:asked])
	}
	return n, d.deliver(t, t.scratch[:n])
}

// readLowMemory moves bytes when memory is gone: it looks at them, offers them to the sink, and
// takes from the source what the sink took. So those whose receivers are fast go on while the
// slow ones hold all there is. A handler's bytes cannot be put back; it is shown few.
func (d *Pump) readLowMemory(t *turn) (n int, ok bool) {
	if d.Is(Handled | Closing) {
		return d.read(t, minRead)
	}
	seen, err := sock.Peek(t.Source, t.scratch[:smallRead])
	if seen = d.noteReceive(t, seen, err); seen == 0 {
		return 0, true
	}
	n, err = d.write(t, t.scratch[:seen], false)
	if err != nil {
		return 0, t.sinkFailed(err)
	}
	if n == 0 {
		return 0, true
	}
	if taken, err := sock.Recv(t.Source, t.scratch[:n]); err != nil || taken != n {
		// They were there a moment ago, and nobody else reads: this cannot be, and to go on
		// would send them twice.
		t.note(Inconsistent)
		return 0, false
	}
	d.noteDelivered(t, n)
	if n == seen {
		d.noteRead(n, smallRead)
	}
	return n, true
}

// drainDiscard reads bytes that nobody wants any more, so that the source's FIN is seen and no
// unread bytes turn our own FIN into an RST.
func (d *Pump) drainDiscard(t *turn) int { return d.receive(t, t.scratch[:usualRead]) }
