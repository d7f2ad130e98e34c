package engine

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// The memory budget is one number for all loops. A loop keeps its own account and
// settles the difference with the common one before it waits, and whenever it is
// large: by so much, for each loop, the limit may be exceeded for a moment.
const settleAt = 128 << 10

// settle brings the loop's account and the common one together.
func (l *loop) settle() {
	if d := l.count.memory - l.charged; d != 0 {
		l.others = l.engine.memory.Add(d) - l.count.memory
		l.charged = l.count.memory
	}
}

// free is what is left of the budget.
func (l *loop) free() int64 {
	if d := l.count.memory - l.charged; d > settleAt || d < -settleAt {
		l.settle()
	}
	return l.engine.options.MemoryLimit - l.others - l.count.memory
}

// room is how many bytes a direction may take now. It may hold no more than the
// high watermark, and no more than is left of the budget: as memory runs out,
// those who hold most stop first, and those who hold little go on.
func (l *loop) room(d *direction) int {
	free := l.free()
	if l.engine.options.NoFlowControl {
		return int(min(max(free, 0), math.MaxInt32))
	}
	high, _ := l.watermarks(d)
	return int(min(int64(high), free)) - int(d.pending)
}

// readLowMemory moves bytes when memory is gone: it looks at them, offers them to the sink, and
// takes from the source what the sink took. So those whose receivers are fast go
// on while the slow ones hold all there is. A handler's bytes cannot be put back; it is
// shown few.
func (l *loop) readLowMemory(p *pair, s side) (n int, alive bool) {
	d := &p.dir[s]
	if d.is(handled | closing) {
		return l.read(p, s, minRead)
	}
	source := int(p.fd[s])
	seen, err := sock.Peek(source, l.scratch[:smallRead])
	if seen, alive = l.received(p, s, seen, err); seen == 0 {
		return 0, alive
	}
	n, err = l.write(d, int(p.fd[s.other()]), l.scratch[:seen], false)
	if err != nil {
		return 0, l.sinkFailed(p, s, err)
	}
	if n == 0 {
		return 0, true
	}
	if taken, err := sock.Recv(source, l.scratch[:n]); err != nil || taken != n {
		// They were there a moment ago, and nobody else reads: this cannot be, and to go on
		// would send them twice.
		l.end(p, ReasonReset, unix.EIO)
		return 0, false
	}
	l.noteDelivered(p, s, n)
	if n == seen {
		l.noteRead(d, n, smallRead)
	}
	return n, true
}

// waitForMemory stops reading until memory comes free. The direction is tried again when
// it has nothing pending any more, and with each tick.
func (l *loop) waitForMemory(p *pair, d *direction) {
	d.set(starved)
	l.count.starved++
	l.memWaiters = append(l.memWaiters, reference{p.slot, p.generation})
}

// retryStarved tries the starved directions again.
func (l *loop) retryStarved() {
	waiters := l.memWaiters
	l.memWaiters = l.memWaiters[len(l.memWaiters):]
	for _, r := range waiters {
		if p := l.find(r); p != nil {
			p.dir[upstream].clear(starved)
			p.dir[downstream].clear(starved)
			l.queue(p)
		}
	}
	if len(l.memWaiters) == 0 {
		l.memWaiters = waiters[:0]
	}
}
