package engine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNothingIsLostWhileMemoryIsGone: bytes that come right after the relay has looked
// and found none are passed on like all others.
func TestNothingIsLostWhileMemoryIsGone(t *testing.T) {
	e, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	l := e.loops[0]
	source, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range append(source[:], sink[:]...) {
		defer unix.Close(fd)
	}
	p := l.pairs.take()
	p.state = stateOpen
	p.fd[incoming], p.fd[outgoing] = int32(source[0]), int32(sink[0])
	d := &p.dir[upstream]
	l.count.memory = e.options.MemoryLimit

	const bytes = 50_000
	written := make(chan error, 1)
	go func() {
		var err error
		for range bytes {
			if _, err = unix.Write(source[1], []byte{1}); err != nil {
				break
			}
		}
		written <- err
	}()
	arrived := 0
	buf := make([]byte, 4096)
	for done := false; ; {
		d.set(readable | writable)
		l.turn(p, upstream)
		n, err := unix.Read(sink[1], buf[:min(len(buf), unread(sink[1]))])
		if err != nil {
			t.Fatal(err)
		}
		arrived += n
		if done && n == 0 && unread(source[0]) == 0 && d.pending == 0 {
			break
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
		l.feed()
	}
	if arrived != bytes {
		t.Errorf("%d of %d bytes arrived", arrived, bytes)
	}
	l.count.memory -= e.options.MemoryLimit
	if l.count.memory != 0 || l.buffers.inUse() != 0 {
		t.Errorf("%d bytes charged, %d buffers", l.count.memory, l.buffers.inUse())
	}
	l.pairs.put(p)
}
