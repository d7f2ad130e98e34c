package engine

// One direction of a pair:
//
//	           +--- wants to read: !eof && !paused && !full && !starved ---+
//	 source ---| read or splice in |----- pending -----| write or splice out |--- sink
//	           +--- may: readable latch                may: writable latch --+
//
//	              pending >= high                        pending <= low
//	  reading ---------------------> paused    paused -------------------> reading
//	              pipe takes no more                     pending == 0
//	  reading ---------------------> full      full ---------------------> reading
//	              memory limit reached                   next tick, or pending == 0
//	  reading ---------------------> starved   starved ------------------> reading
//	              source's FIN                           pending == 0: pass the FIN on
//	  reading ---------------------> eof       eof ----------------------> finSent
//
// The latches are set by events and cleared only by what the kernel says when it
// is asked to move something: an event is not repeated, so a latch that is
// cleared without that hangs the pair. To pause is not to read, and costs nothing.

// turnBudget is how many bytes a direction may take from its source in one turn,
// before other pairs have theirs.
const turnBudget = 256 << 10

// budget is more where that many bytes were waited for, and nobody else waits.
func (l *loop) budget(d *direction) int {
	if l.atFullSpeed(d) {
		return lowat
	}
	return turnBudget
}

// readSize is the most that one read of the direction takes into user space.
func (l *loop) readSize(d *direction) int {
	if l.atFullSpeed(d) {
		return scratchSize
	}
	return usualRead
}

func (l *loop) atFullSpeed(d *direction) bool { return d.is(moderated) && !l.interactive() }

// minRead is the least room in memory for which a read is worth its call. With less, and
// nothing pending, only what the sink takes at once is read.
const minRead = 4 << 10

// turn moves what can be moved now: it flushes what is pending, then reads,
// until a latch is down, the direction is paused, or the budget is spent.
// It reports whether more could be moved at once. The pair may have ended: the
// caller looks at its state.
func (l *loop) turn(p *pair, s side) (again bool) {
	d := &p.dir[s]
	taken := 0
	for {
		if d.flags&(throttled|writable) == throttled|writable && l.enoughUnsent(p, s) {
			d.clear(writable)
		}
		if d.pending > 0 && d.is(writable) && !l.flush(p, s) {
			return false
		}
		d.pauseOrResume(l.watermarks(d))
		if !d.mayRead() {
			break
		}
		if taken >= l.budget(d) {
			again = true
			break
		}
		room := l.room(d)
		lowMemory := room < minRead && d.pending == 0
		if lowMemory && !d.is(writable) || room <= 0 && !lowMemory {
			l.waitForMemory(p, d)
			break
		}
		if taken > 0 && d.is(bulk) {
			d.set(wantsLargePipe)
		}
		n, alive := 0, true
		if lowMemory {
			n, alive = l.readLowMemory(p, s)
		} else {
			n, alive = l.read(p, s, room)
		}
		if !alive {
			return false
		}
		taken += n
	}
	if taken > 0 {
		p.last = l.tick
		l.ran(p, s, taken)
		if taken < minRead {
			d.clear(bulk | wantsLargePipe) // what comes in crumbs goes through the scratch buffer
		}
	}
	l.noteStall(p, s)
	if d.is(eof|closing) && d.pending == 0 && !d.is(finSent) && !p.cutOff(s) {
		l.passFIN(p, s)
	}
	return again
}

// mayRead: the source may have something, and the direction wants it.
func (d *direction) mayRead() bool {
	return d.flags&(readable|eof|paused|full|starved) == readable
}

// watermarks are the direction's watermarks.
func (l *loop) watermarks(d *direction) (high, low int) {
	if d.pendingLimit > 0 {
		return int(d.pendingLimit), int(d.pendingLimit) / 4
	}
	return l.high, l.low
}

// pauseOrResume pauses at the high watermark, and ends pauses when enough has left.
func (d *direction) pauseOrResume(high, low int) {
	switch pending := int(d.pending); {
	case pending == 0:
		d.clear(paused | full | starved)
	case pending >= high:
		d.set(paused)
	case pending <= low:
		d.clear(paused)
	}
}

// noteStall keeps the statistics of pauses: a direction stalls when it would read,
// but for its sink.
func (l *loop) noteStall(p *pair, s side) {
	d := &p.dir[s]
	now := d.is(readable) && !d.is(eof) && d.is(paused|full) && !d.is(writable)
	switch {
	case now && !d.is(stalled):
		d.set(stalled | hasStalled)
		l.watchStall(p, s)
		d.pauses++
		d.stalledAt = l.tick
		l.count.pauses++
	case !now && d.is(stalled):
		d.clear(stalled)
		d.stalledFor += l.tick - d.stalledAt
		if d.is(throttled) {
			l.watchStall(p, s) // it may go on without stalling, and be free again
		}
	}
}

// stalledTicks is for how long the direction has stalled in all.
func (d *direction) stalledTicks(now uint32) uint32 {
	if d.is(stalled) {
		return d.stalledFor + now - d.stalledAt
	}
	return d.stalledFor
}

// read takes up to room bytes from the source, on the path that the direction is
// on. Alive is false when the pair has ended.
//
// Invariant: every read either takes bytes, or clears the readable latch, or sets
// eof or full, or leaves the path for another: so turn comes to an end.
func (l *loop) read(p *pair, s side, room int) (n int, alive bool) {
	d := &p.dir[s]
	switch {
	case d.is(inPipe) && d.is(buffered|handled|closing):
		d.set(full) // the pipe was in use before; what is in it goes first
		return 0, true
	case d.is(closing):
		return l.drainDiscard(p, s)
	case d.is(handled):
		return l.readHandled(p, s, room)
	case d.is(buffered):
		return l.readBuffered(p, s, min(room, l.readSize(d)))
	}
	return l.readSpliced(p, s, room)
}

// noteRead notes what a read(2) of up to asked bytes brought. A short read means that
// the socket is empty, which spares the read that would only say so; but not when a
// FIN or urgent data is there too.
func (l *loop) noteRead(d *direction, n, asked int) {
	if n < asked && !d.is(ending|urgent) {
		d.clear(readable)
	}
}

// noteDelivered notes that the sink took n bytes.
func (l *loop) noteDelivered(p *pair, s side, n int) {
	d := &p.dir[s]
	d.bytes += uint64(n)
	d.messages++
	if d.is(ackHeld) {
		l.releaseACK(p, s)
	}
	p.last = l.tick
	path := 0
	if d.is(buffered) {
		path = 1
	}
	l.count.delivered[s][path] += uint64(n)
}
