package engine

import "github.com/tprelay/tprelay/splice"

// A direction borrows a pipe when it has bytes for it, and gives it back empty. Bulk
// that is moderated has a large one, and so has what fills ordinary ones.

// borrow gives a direction with nothing pending a pipe. False: there is none to be had.
// When memory is so short that a pipe's capacity, which is what it is charged with,
// would go beyond the limit, a buffer is charged with less.
func (l *loop) borrow(d *direction) bool {
	if l.holding {
		return false // descriptors are for pairs that come over
	}
	free := l.free()
	if d.is(moderated|wantsLargePipe) && free >= max(largePipeSize, int64(l.engine.options.PipeSize)) {
		if id, ok := l.largePipes.Get(); ok {
			d.set(wide)
			l.lend(d, id)
			// It is more than a loop may be wrong by: another may have taken as much
			// since we last looked.
			if l.settle(); l.free() >= 0 {
				return true
			}
			l.release(d)
		}
	}
	if free < int64(l.engine.options.PipeSize) {
		return false
	}
	id, ok := l.pipes.Get()
	if ok {
		l.lend(d, id)
	}
	return ok
}

func (l *loop) lend(d *direction, id splice.ID) {
	d.storeID = int32(id)
	d.set(inPipe)
	l.count.memory += int64(l.pipe(d).Size())
}

// pool is where the direction's pipe comes from.
func (l *loop) pool(d *direction) *splice.Pool {
	if d.is(wide) {
		return l.largePipes
	}
	return l.pipes
}

// pipe is the pipe that the direction has; good until another borrows.
func (l *loop) pipe(d *direction) *splice.Pipe { return l.pool(d).Pipe(splice.ID(d.storeID)) }
