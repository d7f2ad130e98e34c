package splice_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/splice"
)

// lane is a source with its client and a sink with its server, and a pool between
// them; step takes one message through all of it.
type lane struct {
	client, source, sink, server *socket
	pool                         *splice.Pool
	message                      []byte
}

func newLane(t testing.TB, size int) *lane {
	l := &lane{pool: splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 1, Keep: 1}), message: pattern(size)}
	t.Cleanup(l.pool.Close)
	l.source, l.client = connection(t)
	l.sink, l.server = connection(t)
	for _, s := range []*socket{l.source, l.client, l.sink, l.server} {
		s.set(unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
		s.set(unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	}
	return l
}

// step sends a message, moves it, and takes it out at the other end. It does not
// fail in the ordinary way, so as not to allocate.
func (l *lane) step() {
	if n, err := unix.Write(l.client.fd, l.message); n != len(l.message) {
		panic(err)
	}
	for moved := 0; moved < len(l.message); {
		id, ok := l.pool.Get()
		if !ok {
			panic("no pipe")
		}
		p := l.pool.Pipe(id)
		_, st, err := p.Fill(l.source.fd, 1<<20)
		if st == splice.Failed {
			panic(err)
		}
		n, st, err := p.Drain(l.sink.fd)
		if st == splice.Failed {
			panic(err)
		}
		moved += n
		l.pool.Put(id)
	}
	for left := len(l.message); left > 0; {
		n, err := unix.Read(l.server.fd, l.message[:left])
		if err != nil && err != unix.EAGAIN {
			panic(err)
		}
		left -= max(n, 0)
	}
}

func TestMovingDoesNotAllocate(t *testing.T) {
	l := newLane(t, 20_000)
	l.step()
	if n := testing.AllocsPerRun(100, l.step); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

func TestGetAndPutDoNotAllocate(t *testing.T) {
	for keep, what := range []string{"with pipes that are closed", "with pipes that are kept"} {
		pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 1, Keep: keep})
		pool.Put(get(t, pool))
		if n := testing.AllocsPerRun(100, func() { pool.Put(get(t, pool)) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
		pool.Close()
	}
}

// BenchmarkMove includes the client's write and the server's read.
func BenchmarkMove(b *testing.B) {
	for _, size := range []int{1, 1448, 64 << 10} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			l := newLane(b, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				l.step()
			}
		})
	}
}

func BenchmarkGetPut(b *testing.B) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 1, Keep: 1})
	defer pool.Close()
	b.ReportAllocs()
	for b.Loop() {
		id, _ := pool.Get()
		pool.Put(id)
	}
}
