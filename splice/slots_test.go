package splice_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/splice"
)

// fragments sends data in pieces that each take a slot of a pipe. Pieces that lie
// side by side in the sender's memory would share one; the kernel carves them from
// a page per thread, so that a byte to somebody else keeps them apart.
func fragments(t *testing.T, to *socket, data []byte, size int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	aside, _ := connection(t)
	for len(data) > 0 {
		n := min(size, len(data))
		to.send(data[:n])
		aside.send([]byte{0})
		data = data[n:]
	}
}

// sozu pull request 1323: a pipe with 16 slots is full of 16 bytes.
func TestTinyFragmentsFillThePipeBySlots(t *testing.T) {
	for _, size := range []int{1, 7, 1448} {
		source, client := connection(t)
		sink, server := connection(t)
		p := borrow(t, pipeSize)
		slots := p.Size() / os.Getpagesize()
		data := pattern(size * (3*slots + 1))
		fragments(t, client, data, size)
		source.arrived(len(data))

		for moved := splice.Moved; moved == splice.Moved; {
			_, moved, _ = p.Fill(source.fd, 1<<20)
			if moved != splice.Moved && moved != splice.Full {
				t.Fatalf("fragments of %d: status %d", size, moved)
			}
		}
		if p.Pending() != size*slots || source.queued() == 0 {
			t.Fatalf("fragments of %d: %d bytes in %d slots, %d in the socket; want a pipe without room",
				size, p.Pending(), slots, source.queued())
		}
		drain(t, p, sink.fd, splice.Moved)
		for source.queued() > 0 {
			fill(t, p, source.fd, 1<<20, splice.Moved)
			drain(t, p, sink.fd, splice.Moved)
		}
		fill(t, p, source.fd, 1<<20, splice.Empty)
		if !bytes.Equal(server.receive(len(data)), data) {
			t.Errorf("fragments of %d: the bytes differ", size)
		}
	}
}

func TestOnePagePipe(t *testing.T) {
	source, client := connection(t)
	sink, server := connection(t)
	p := borrow(t, 1)
	if p.Size() != os.Getpagesize() {
		t.Fatalf("the pipe has %d bytes, want one page", p.Size())
	}
	data := pattern(100)
	fragments(t, client, data, 10)
	source.arrived(len(data))
	for left := len(data); left > 0; {
		n := fill(t, p, source.fd, 1<<20, splice.Moved)
		if n > 10 {
			t.Errorf("one slot took %d bytes of several fragments", n)
		}
		fill(t, p, source.fd, 1<<20, splice.Full)
		left -= drain(t, p, sink.fd, splice.Moved)
	}
	if !bytes.Equal(server.receive(len(data)), data) {
		t.Error("the bytes differ")
	}
}

// relay moves everything from source to sink, as one direction of an
// edge-triggered relay would, until the source ends.
func relay(t *testing.T, p *splice.Pipe, source, sink *socket) {
	t.Helper()
	for {
		_, st, err := p.Fill(source.fd, 1<<20)
		switch st {
		case splice.Empty:
			source.ready(unix.POLLIN)
		case splice.End:
			for p.Pending() > 0 {
				push(t, p, sink)
			}
			sink.shutdown()
			return
		case splice.Moved, splice.Full:
			push(t, p, sink)
		default:
			t.Fatalf("status %d, error %v", st, err)
		}
	}
}

func push(t *testing.T, p *splice.Pipe, sink *socket) {
	t.Helper()
	_, st, err := p.Drain(sink.fd)
	switch st {
	case splice.Moved:
	case splice.Full:
		sink.ready(unix.POLLOUT)
	default:
		t.Fatalf("status %d, error %v", st, err)
	}
}

func TestEveryByteArrivesInOrder(t *testing.T) {
	for _, size := range []int{1, 8 << 10, 64 << 10, 1 << 20} {
		source, client := connection(t)
		sink, server := connection(t)
		sink.set(unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10)
		data := pattern(1 << 20)
		var got []byte
		var ends sync.WaitGroup
		ends.Go(func() {
			chunks := rand.New(rand.NewPCG(1, uint64(size)))
			for rest := data; len(rest) > 0; {
				n := min(1+chunks.IntN(1<<chunks.IntN(16)), len(rest))
				if !transfer(func() (int, error) { return unix.Write(client.fd, rest[:n]) }, client.fd, unix.POLLOUT, &n) {
					return
				}
				rest = rest[n:]
			}
			_ = unix.Shutdown(client.fd, unix.SHUT_WR)
		})
		ends.Go(func() {
			b := make([]byte, 100_000)
			for {
				var n int
				if !transfer(func() (int, error) { return unix.Read(server.fd, b) }, server.fd, unix.POLLIN, &n) || n == 0 {
					return
				}
				got = append(got, b[:n]...)
			}
		})
		relay(t, borrow(t, size), source, sink)
		ends.Wait()
		if !bytes.Equal(got, data) {
			t.Errorf("pipe of %d bytes: %d bytes arrived of %d, or others", size, len(got), len(data))
		}
	}
}

// transfer does one read or write, from a goroutine that must not end the test.
func transfer(call func() (int, error), fd int, events int16, n *int) bool {
	for {
		m, err := call()
		if err == nil {
			*n = m
			return true
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return false
		}
		if ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, patience); ready == 0 && err == nil {
			return false
		}
	}
}
