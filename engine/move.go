package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

const (
	// scratchSize is the most that one read takes into user space, from a moderated direction.
	scratchSize = 512 << 10
	// usualRead is the most that it takes from others: what the sink does not take of it has
	// to be copied once more.
	usualRead = 64 << 10
	// smallRead is the most that a spliced direction reads through the scratch
	// buffer; when that much comes at once, splice takes over.
	smallRead = 16 << 10
)

// flush offers pending bytes to the sink. False: the pair has ended.
func (l *loop) flush(p *pair, s side) bool {
	d := &p.dir[s]
	var alive bool
	if d.is(inPipe) {
		alive = l.flushPipe(p, s)
	} else {
		alive = l.flushBox(p, s)
	}
	if alive && d.pending == 0 {
		l.release(d)
	}
	return alive
}

func (l *loop) flushPipe(p *pair, s side) bool {
	d := &p.dir[s]
	n, st, err := l.pipe(d).Drain(int(p.fd[s.other()]))
	l.count.splices++
	if n > 0 {
		l.noteFlushed(p, s, n)
	}
	switch st {
	case splice.Full:
		d.clear(writable)
		l.count.sinkFull++
	case splice.Refused:
		// The sink takes bytes, and its event has come: no other will.
		return l.leavePipe(p, s) && l.flushBox(p, s)
	case splice.Failed:
		return l.sinkFailed(p, s, err)
	}
	return true
}

func (l *loop) flushBox(p *pair, s side) bool {
	d := &p.dir[s]
	for {
		before := l.buffers.Size(d.queue())
		vector, size := l.buffers.Gather(d.queue())
		n, err := sock.SendVector(int(p.fd[s.other()]), vector)
		n, err = l.noteWrite(d, n, size, err)
		if err != nil {
			return l.sinkFailed(p, s, err)
		}
		if n > 0 {
			l.buffers.Consume(d.queue(), n)
			l.count.memory += int64(l.buffers.Size(d.queue()) - before)
			l.noteFlushed(p, s, n)
		}
		if d.pending == 0 || !d.is(writable) {
			return true
		}
	}
}

// noteFlushed notes that the sink took n pending bytes.
func (l *loop) noteFlushed(p *pair, s side, n int) {
	p.dir[s].pending -= uint32(n)
	l.count.pending -= int64(n)
	l.noteDelivered(p, s, n)
}

// release gives the pipe or the buffer back. One with bytes left in it loses them:
// its pair has ended.
func (l *loop) release(d *direction) {
	if d.storeID < 0 {
		return
	}
	if d.is(inPipe) {
		l.count.memory -= int64(l.pipe(d).Size())
		l.pool(d).Put(splice.ID(d.storeID))
		d.clear(inPipe | wide)
	} else {
		l.count.memory -= int64(l.buffers.Size(d.queue()))
		l.buffers.Put(d.queue())
	}
	d.storeID = -1
	l.count.pending -= int64(d.pending)
	d.pending = 0
}

// readSpliced takes bytes on the path of a direction that nobody looks at. Few
// bytes that can go on at once pass through the scratch buffer, for two system
// calls on two sockets cost less than two on sockets and a pipe; bulk, and whatever
// must stay behind, goes through a pipe.
func (l *loop) readSpliced(p *pair, s side, room int) (int, bool) {
	d := &p.dir[s]
	switch {
	case d.pending > 0 && !d.is(inPipe):
		d.set(full) // what waits in a buffer goes first
		return 0, true
	case d.pending == 0 && d.is(writable) && !d.is(bulk):
		return l.readBuffered(p, s, min(room, smallRead))
	case d.pending == 0:
		if !l.borrow(d) {
			return l.readBuffered(p, s, min(room, l.readSize(d)))
		}
	}
	if l.interactive() {
		room = min(room, turnBudget) // a large pipe takes more at once
	}
	n, st, err := l.pipe(d).Fill(int(p.fd[s]), room)
	l.count.splices++
	switch st {
	case splice.Moved:
		d.pending += uint32(n)
		l.count.pending += int64(n)
		return n, true
	case splice.Empty:
		l.count.sourceEmpty++
		d.clear(readable)
	case splice.Full:
		l.count.pipeFull++
		d.set(full)
	case splice.End:
		if d.pending > 0 {
			d.set(full) // asked again when the pipe is empty
			return 0, true
		}
		// It may also be urgent data with a FIN behind, at which splice(2) sticks.
		// Only recv tells.
		l.release(d)
		return l.readBuffered(p, s, min(room, smallRead))
	case splice.Refused:
		l.count.refused++
		d.set(buffered)
	case splice.Failed:
		d.cutShort()
		if !l.failed(p, s, err) {
			return 0, false
		}
	}
	if d.pending == 0 {
		l.release(d)
	}
	return 0, true
}

// receive reads into b; for the results see received.
func (l *loop) receive(p *pair, s side, b []byte) (n int, alive bool) {
	n, err := sock.Recv(int(p.fd[s]), b)
	if n, alive = l.received(p, s, n, err); n > 0 {
		l.noteRead(&p.dir[s], n, len(b))
	}
	return n, alive
}

// received notes what a recv of n bytes, or with an error, tells of the source. The first result
// is 0 when there is nothing now, when the source has ended (eof is set), and when
// the pair has ended (alive is false).
func (l *loop) received(p *pair, s side, n int, err error) (_ int, alive bool) {
	d := &p.dir[s]
	switch {
	case err == unix.EAGAIN:
		l.sourceEmpty(p, s)
	case err != nil:
		d.cutShort()
		return 0, l.failed(p, s, err)
	case n == 0 && l.endedByReset(p, s):
		d.cutShort()
		return 0, l.failed(p, s, nil)
	case n == 0:
		d.set(eof)
		if !p.broken[s] { // else failed has found out whether it is a FIN
			d.set(finCame)
		}
	}
	return n, true
}

// cutShort notes that nothing more can be read, and that what was read is not all: an RST
// follows, although a FIN may have come behind bytes that are lost.
func (d *direction) cutShort() {
	d.set(eof)
	d.clear(finCame)
}

// readBuffered takes up to asked bytes through the scratch buffer; what the sink
// does not take waits in a buffer.
func (l *loop) readBuffered(p *pair, s side, asked int) (int, bool) {
	d := &p.dir[s]
	if d.is(delayACK) {
		sock.DelayACK(int(p.fd[s]))
	}
	n, alive := l.receive(p, s, l.scratch[:asked])
	if n == 0 {
		return 0, alive
	}
	if n >= smallRead {
		d.set(bulk)
		if !d.is(metered) {
			l.beginMeter(p, s) // now, for each read has the kernel enlarge the source's buffer
		}
	}
	if n < asked && d.flags&(ending|urgent) == ending {
		// The FIN, if it is here, goes with the last bytes in one segment.
		m, alive := l.receive(p, s, l.scratch[n:asked])
		if !alive {
			return 0, false
		}
		n += m
	}
	return n, l.deliver(p, s, l.scratch[:n])
}

// drainDiscard reads bytes that nobody wants any more, so that the source's FIN is
// seen and no unread bytes turn our own FIN into an RST.
func (l *loop) drainDiscard(p *pair, s side) (int, bool) {
	return l.receive(p, s, l.scratch[:usualRead])
}

// sourceEmpty believes an EAGAIN of recv, with one exception: at urgent data, recv also
// says so when a signal is pending (Go's runtime sends SIGURG to preempt), however much
// is there.
func (l *loop) sourceEmpty(p *pair, s side) {
	d := &p.dir[s]
	if d.is(urgent) && sock.Unread(int(p.fd[s])) > 0 {
		return
	}
	l.count.sourceEmpty++
	d.clear(readable)
}

// deliver hands data to the sink, behind what is pending, and keeps what it does
// not take. False: the pair has ended.
func (l *loop) deliver(p *pair, s side, data []byte) bool {
	d := &p.dir[s]
	if d.pending == 0 && d.is(writable) && len(data) > 0 {
		n, err := l.write(d, int(p.fd[s.other()]), data, p.finFollows(s))
		if err != nil {
			return l.sinkFailed(p, s, err)
		}
		if n > 0 {
			l.noteDelivered(p, s, n)
		}
		data = data[n:]
	}
	l.keep(d, data)
	return true
}

// keep puts data behind what is pending. Invariant: the direction has no pipe.
func (l *loop) keep(d *direction, data []byte) {
	if len(data) == 0 {
		return
	}
	if d.storeID < 0 {
		d.storeID = int32(l.buffers.Get())
	}
	before := l.buffers.Size(d.queue())
	l.buffers.Append(d.queue(), data)
	l.count.memory += int64(l.buffers.Size(d.queue()) - before)
	d.pending += uint32(len(data))
	l.count.pending += int64(len(data))
}

// leavePipe moves what is in the pipe into a buffer, for a sink that refuses
// splice, and keeps the direction on buffers.
func (l *loop) leavePipe(p *pair, s side) bool {
	d := &p.dir[s]
	l.count.refused++
	if err := l.emptyPipe(d); err != nil {
		return l.sinkFailed(p, s, err)
	}
	d.set(buffered)
	return true
}

// emptyPipe moves what is in a direction's pipe into a buffer.
func (l *loop) emptyPipe(d *direction) error {
	pipe := l.pipe(d)
	var data []byte
	for pipe.Pending() > 0 {
		n, err := pipe.Read(l.scratch)
		if err != nil || n == 0 {
			return unix.EIO // a pipe that says that it holds bytes has them
		}
		data = append(data, l.scratch[:n]...)
	}
	l.release(d)
	l.keep(d, data)
	return nil
}

// finFollows: this turn passes the FIN on, if the sink takes what comes before it.
func (p *pair) finFollows(s side) bool {
	return p.dir[s].is(eof) && !p.broken[s] && p.state == stateOpen
}

// write sends what the socket takes; for the results see noteWrite. More: keep a last segment
// that is not full for what follows.
func (l *loop) write(d *direction, fd int, data []byte, more bool) (int, error) {
	n, err := sock.Send(fd, data, more)
	return l.noteWrite(d, n, len(data), err)
}

// noteWrite notes how a send of size bytes ended. Less than all clears the latch; EAGAIN is 0
// and no error.
func (l *loop) noteWrite(d *direction, n, size int, err error) (int, error) {
	if err == unix.EAGAIN {
		n, err = 0, nil
	}
	if err == nil && n < size {
		d.clear(writable)
		l.count.sinkFull++
	}
	return n, err
}
