package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// lowMemory is a loop whose memory is gone, with one pair between two pairs of sockets: bytes
// written to from come to be read from to.
type lowMemory struct {
	*loop
	p        *pair
	from, to int
}

func newLowMemory(t *testing.T) *lowMemory {
	t.Helper()
	one := oneLoop(t)
	limit := one.engine.options.MemoryLimit
	var fds [4]int
	for i := 0; i < len(fds); i += 2 {
		two, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(two[0]); unix.Close(two[1]) })
		copy(fds[i:], two[:])
	}
	l := &lowMemory{one, one.pairs.take(), fds[1], fds[3]}
	l.p.state = stateOpen
	l.p.fd[incoming], l.p.fd[outgoing] = int32(fds[0]), int32(fds[2])
	l.env.Budget.Used = limit
	t.Cleanup(func() {
		l.env.Budget.Used -= limit
		if l.env.Budget.Used != 0 || l.env.Queues.InUse() != 0 {
			t.Errorf("%d bytes charged, %d buffers", l.env.Budget.Used, l.env.Queues.InUse())
		}
		l.pairs.put(l.p)
	})
	return l
}

// during turns the pair's upstream direction, each turn followed by after, while n bytes are
// written one by one, and until after says that nothing is left.
func (l *lowMemory) during(t *testing.T, n int, after func() (left bool)) {
	t.Helper()
	written := make(chan error, 1)
	go func() {
		var err error
		for range n {
			if _, err = unix.Write(l.from, []byte{1}); err != nil {
				break
			}
		}
		written <- err
	}()
	d := &l.p.dir[upstream]
	for done := false; ; {
		d.Set(pump.Readable | pump.Writable)
		l.turn(l.p, upstream)
		if left := after(); done && !left {
			return
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
		l.retryStarved()
	}
}

// readAll reads what a socket has, and says how much that was.
func readAll(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.Read(fd, make([]byte, sock.Unread(fd)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNothingIsLostWhileMemoryIsGone: bytes that come right after the relay has looked
// and found none are passed on like all others.
func TestNothingIsLostWhileMemoryIsGone(t *testing.T) {
	l := newLowMemory(t)
	const bytes = 50_000
	arrived := 0
	l.during(t, bytes, func() bool {
		n := readAll(t, l.to)
		arrived += n
		return n > 0 || sock.Unread(int(l.p.fd[incoming])) > 0
	})
	if arrived != bytes {
		t.Errorf("%d of %d bytes arrived", arrived, bytes)
	}
}

// TestNothingIsTakenWhileMemoryIsGone: of what the sink does not want nothing is kept, whenever it
// comes. (A byte that came between two looks was, once: with a buffer of its own, for
// each pair.)
func TestNothingIsTakenWhileMemoryIsGone(t *testing.T) {
	l := newLowMemory(t)
	for err := error(nil); err == nil; {
		err = unix.Sendto(int(l.p.fd[outgoing]), make([]byte, 4096), unix.MSG_DONTWAIT, nil)
	}
	taken := 50_000
	l.during(t, taken, func() bool {
		n := readAll(t, int(l.p.fd[incoming]))
		taken -= n
		return n > 0
	})
	if taken > 0 {
		t.Errorf("%d bytes were taken", taken)
		l.p.dir[upstream].Release(&l.env)
	}
}
