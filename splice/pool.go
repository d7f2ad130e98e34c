package splice

import (
	"golang.org/x/sys/unix"
)

// ID names a pipe of a pool.
type ID int32

// Limits of a Pool.
type Limits struct {
	// Size of each pipe in bytes; the kernel rounds it up to a power of two pages,
	// or gives less.
	Size int
	// Least is the size of the smallest pipe that is used, in bytes. When the kernel gives a
	// smaller one, the next calls of Get do not ask for another. Default: 0, any size will do.
	Least int
	// Pipes is the largest number of pipes. Keep is how many of them stay open while they are
	// not lent.
	Pipes, Keep int
	// Descriptors is the first descriptor number that pipes do not use, so that the highest
	// numbers are left to others. Default: 0, no limit.
	Descriptors int
}

// Pool lends pipes. It makes no more than its limit, and keeps some of them open while they are not
// lent. When it has none to lend, the caller moves bytes through a buffer.
type Pool struct {
	limits Limits
	pipes  []Pipe
	idle   []ID // empty pipes
	free   []ID // slots of pipes without a pipe behind them
	misses uint64
	pause  int // for how many calls of Get no pipe is asked for
}

// pauseAfter is how many calls of Get do not ask the kernel after it has made a pipe that is too
// small. To make a pipe and close it takes five system calls.
const pauseAfter = 100

// NewPool makes a pool. It opens no pipe yet.
func NewPool(limits Limits) *Pool { return &Pool{limits: limits} }

// Get lends an empty pipe. ok is false when the limit is reached, and when the kernel gives no pipe
// (descriptors, memory) or one that is too small.
func (p *Pool) Get() (id ID, ok bool) {
	if n := len(p.idle); n > 0 {
		id = p.idle[n-1]
		p.idle = p.idle[:n-1]
		return id, true
	}
	if p.pause > 0 || p.Open() >= p.limits.Pipes {
		p.pause = max(p.pause-1, 0)
		p.misses++
		return 0, false
	}
	pipe, ok := p.limits.open()
	if ok && pipe.size < p.limits.Least {
		pipe.close()
		p.pause, ok = pauseAfter, false
	}
	if !ok {
		p.misses++
		return 0, false
	}
	if n := len(p.free); n > 0 {
		id = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		id = ID(len(p.pipes))
		p.pipes = append(p.pipes, Pipe{})
	}
	p.pipes[id] = pipe
	return id, true
}

// Pipe is the pipe of that name; the pointer is good until the next Get.
func (p *Pool) Pipe(id ID) *Pipe { return &p.pipes[id] }

// Put takes a pipe back. A pipe that still holds bytes is closed: they belong to a connection that
// has ended, and must not reach the next.
func (p *Pool) Put(id ID) {
	if p.pipes[id].pending == 0 && len(p.idle) < p.limits.Keep {
		p.idle = append(p.idle, id)
		return
	}
	p.pipes[id].close()
	p.free = append(p.free, id)
}

// Close closes the idle pipes. Pipes that are lent must come back first.
func (p *Pool) Close() {
	for _, id := range p.idle {
		p.pipes[id].close()
		p.free = append(p.free, id)
	}
	p.idle = p.idle[:0]
}

// Open is the number of pipes that exist, Idle of those that are not lent out.
func (p *Pool) Open() int { return len(p.pipes) - len(p.free) }

// Idle is the number of empty pipes that wait in the pool.
func (p *Pool) Idle() int { return len(p.idle) }

// Misses counts the times that Get had none to give.
func (p *Pool) Misses() uint64 { return p.misses }

// defaultSize is what pipe(2) makes: 16 pages.
const defaultSize = 64 << 10

// open makes a pipe, and asks the kernel for its capacity. Once a user without CAP_SYS_RESOURCE
// owns more than /proc/sys/fs/pipe-user-pages-soft pages (16,384 by default, which are 1,024 pipes,
// in all the user's programs), new pipes have one or two pages, and growing them fails.
func (l Limits) open() (Pipe, bool) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return Pipe{}, false
	}
	pipe := Pipe{read: fds[0], write: fds[1]}
	if l.Descriptors > 0 && max(fds[0], fds[1]) >= l.Descriptors {
		pipe.close()
		return Pipe{}, false
	}
	if l.Size != defaultSize {
		if n, err := unix.FcntlInt(uintptr(pipe.write), unix.F_SETPIPE_SZ, l.Size); err == nil {
			pipe.size = n
			return pipe, true
		}
	}
	n, err := unix.FcntlInt(uintptr(pipe.write), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		pipe.close()
		return Pipe{}, false
	}
	pipe.size = n
	return pipe, true
}

func (p *Pipe) close() {
	unix.Close(p.read)
	unix.Close(p.write)
	*p = Pipe{}
}
