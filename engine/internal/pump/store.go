package pump

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/splice"
)

// store is where a pump's pending bytes are.
type store uint8

const (
	storeNone store = iota
	storeQueue
	storePipe
	storeLargePipe
)

// LargePipeSize is the capacity of large pipes, or the high watermark where that is less. It is
// what /proc/sys/fs/pipe-max-size allows everybody by default.
const LargePipeSize = 1 << 20

func (d *Pump) inPipe() bool { return d.store >= storePipe }

// borrow gives a pump with nothing pending a pipe, which it returns when it is empty. Moderated
// pumps have large ones, and so have those that fill ordinary pipes. False: there is none to be
// had. When memory is so short that a pipe's capacity, which is what it is charged with, would go
// beyond the limit, a queue is charged with less.
func (d *Pump) borrow(e *Env) bool {
	if e.NoPipes {
		return false
	}
	free := e.Budget.free()
	if d.Is(Moderated|WantsLargePipe) && free >= int64(max(LargePipeSize, e.PipeSize)) {
		if id, ok := e.LargePipes.Get(); ok {
			d.lend(e, storeLargePipe, id)
			// It is more than a loop may be wrong by: another may have taken as much since
			// the common account was last read.
			if e.Budget.Settle(); e.Budget.free() >= 0 {
				return true
			}
			d.Release(e)
		}
	}
	if free < int64(e.PipeSize) {
		return false
	}
	id, ok := e.Pipes.Get()
	if ok {
		d.lend(e, storePipe, id)
	}
	return ok
}

func (d *Pump) lend(e *Env, s store, id splice.ID) {
	d.store, d.id = s, int32(id)
	e.Budget.Used += int64(d.pipe(e).Size())
}

// pool is where the pump's pipe comes from.
func (d *Pump) pool(e *Env) *splice.Pool {
	if d.store == storeLargePipe {
		return e.LargePipes
	}
	return e.Pipes
}

// pipe is the pipe that the pump has. It is valid until another pump borrows one.
func (d *Pump) pipe(e *Env) *splice.Pipe { return d.pool(e).Pipe(splice.ID(d.id)) }

// Release returns the pipe or the queue. Bytes that are left in it are lost: the pair has ended.
func (d *Pump) Release(e *Env) {
	switch {
	case d.store == storeNone:
		return
	case d.inPipe():
		e.Budget.Used -= int64(d.pipe(e).Size())
		d.pool(e).Put(splice.ID(d.id))
	default:
		e.Budget.Used -= int64(e.Queues.Size(d.queue()))
		e.Queues.Put(d.queue())
	}
	d.store, d.id = storeNone, -1
	e.Count.Pending -= int64(d.Pending)
	d.Pending = 0
}

// Keep puts data behind what is pending. Invariant: the pump has no pipe.
func (d *Pump) Keep(e *Env, data []byte) {
	if len(data) == 0 {
		return
	}
	if d.store == storeNone {
		d.store, d.id = storeQueue, int32(e.Queues.Get())
	}
	before := e.Queues.Size(d.queue())
	e.Queues.Append(d.queue(), data)
	e.Budget.Used += int64(e.Queues.Size(d.queue()) - before)
	d.Pending += uint32(len(data))
	e.Count.Pending += int64(len(data))
}

// EmptyPipe moves what is in the pump's pipe, if it has one, to a queue.
func (d *Pump) EmptyPipe(e *Env) error {
	if !d.inPipe() {
		return nil
	}
	pipe := d.pipe(e)
	var data []byte
	for pipe.Pending() > 0 {
		n, err := pipe.Read(e.scratch)
		if err != nil || n == 0 {
			return unix.EIO // a pipe that says that it holds bytes has them
		}
		data = append(data, e.scratch[:n]...)
	}
	d.Release(e)
	d.Keep(e, data)
	return nil
}

// AppendPending appends a copy of the pending bytes to b. Invariant: the pump has no pipe.
func (d *Pump) AppendPending(e *Env, b []byte) []byte {
	if d.Pending == 0 {
		return b
	}
	return e.Queues.AppendTo(b, d.queue())
}
