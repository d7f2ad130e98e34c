package engine

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// oneLoop is the loop of an engine that does not run.
func oneLoop(t *testing.T) *loop {
	t.Helper()
	e, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.loops[0]
}

// connected gives both ends of a TCP connection.
func connected(t *testing.T) (dialed, accepted *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return out.(*net.TCPConn), in.(*net.TCPConn)
}

// TestStarvedTurnEnds: memory is used up, the source has bytes, nothing is pending, and
// the sink takes nothing. The turn must end, and the pair wait for memory.
func TestStarvedTurnEnds(t *testing.T) {
	l := oneLoop(t)
	p := l.pairs.take()
	p.state = stateOpen
	d := &p.dir[upstream]
	d.set(readable)
	l.count.memory = l.engine.options.MemoryLimit
	if again := l.turn(p, upstream); again || !d.is(starved) || !d.is(readable) || len(l.memWaiters) != 1 {
		t.Errorf("again %v, starved %v, readable %v, %d wait for memory", again, d.is(starved), d.is(readable), len(l.memWaiters))
	}
	l.count.memory = 0
	l.retryStarved()
	if d.is(starved) || !p.queued {
		t.Errorf("not tried again: starved %v, queued %v", d.is(starved), p.queued)
	}
	l.pairs.put(p)
}

// TestThrottleAtNoRate: a sink whose other end acknowledged less than can be counted has
// a rate of 0, which must not be divided by.
func TestThrottleAtNoRate(t *testing.T) {
	l := oneLoop(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := l.pairs.take()
	for s := range side(2) {
		addr := ln.Addr().(*net.TCPAddr)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		p.fd[s] = int32(fd)
	}
	p.dir[upstream].pending = 1000
	if !l.tcpInfo(int(p.fd[outgoing])) {
		t.Fatal("no TCP_INFO")
	}
	l.adjust(p, upstream, 0, 0)
	if d := &p.dir[upstream]; !d.is(throttled) || d.pendingLimit == 0 {
		t.Errorf("throttled %v, at most %d pending: bytes wait, and nothing leaves", d.is(throttled), d.pendingLimit)
	}
	l.pairs.put(p)
}

// TestMovesAreSmallerWhileSomebodyTalks: a large pipe could take a MiB in one call, and all others
// would wait for that.
func TestMovesAreSmallerWhileSomebodyTalks(t *testing.T) {
	l := oneLoop(t)
	sender, accepted := connected(t)
	source, err := accepted.File()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	setReceiveBuffer(int(source.Fd()), 8<<20)
	if _, err := sender.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}

	l.tick = 100
	talker := l.pairs.take()
	talker.dir[downstream].run = 1
	l.ran(talker, upstream, 1)
	p := l.pairs.take()
	p.state, p.fd[incoming] = stateOpen, int32(source.Fd())
	d := &p.dir[upstream]
	d.set(bulk | moderated | readable)
	move := func() int {
		n, alive := l.readSpliced(p, upstream, 1<<20)
		if !alive {
			t.Fatal("the pair has ended")
		}
		l.release(d)
		return n
	}
	if n := move(); n == 0 || n > turnBudget || l.budget(d) != turnBudget {
		t.Errorf("beside a dialogue %d bytes, budget %d", n, l.budget(d))
	}
	l.tick += 2
	if n := move(); n <= turnBudget || l.budget(d) != lowat {
		t.Errorf("alone %d bytes, budget %d", n, l.budget(d))
	}
	d.set(buffered)
	read := func() int {
		before := d.pending
		if n, alive := l.read(p, upstream, 1<<20); !alive || n != int(d.pending-before) {
			t.Fatalf("%d bytes were read, and %d more wait", n, d.pending-before)
		}
		return int(d.pending - before)
	}
	if n := read(); n <= usualRead {
		t.Errorf("through user space, alone: %d bytes", n)
	}
	d.clear(moderated)
	if n := read(); n != usualRead {
		t.Errorf("through user space, not moderated: %d bytes, want %d", n, usualRead)
	}
	l.release(d)
	l.pairs.put(p)
	l.pairs.put(talker)
}

// TestLargePipesOfAllLoopsKeepToTheLimit: a large pipe is a good part of a small limit, and two
// loops that have not waited since they last looked at the common account both see it free.
func TestLargePipesOfAllLoopsKeepToTheLimit(t *testing.T) {
	e, err := New(Options{Loops: 2, MemoryLimit: largePipeSize * 3 / 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	d := [2]direction{{storeID: -1}, {storeID: -1}}
	for _, l := range e.loops {
		l.clock()
	}
	for i, l := range e.loops {
		d[i].set(moderated)
		if !l.borrow(&d[i]) {
			t.Fatalf("loop %d has no pipe", i)
		}
	}
	if charged := e.loops[0].count.memory + e.loops[1].count.memory; charged > e.options.MemoryLimit {
		t.Errorf("%d bytes charged, the limit is %d", charged, e.options.MemoryLimit)
	}
	if !d[0].is(wide) || d[1].is(wide) {
		t.Errorf("wide: %v and %v, want the first only", d[0].is(wide), d[1].is(wide))
	}
	for i, l := range e.loops {
		l.release(&d[i])
		l.settle()
	}
	if n := e.memory.Load(); n != 0 {
		t.Errorf("%d bytes charged in the end", n)
	}
}
