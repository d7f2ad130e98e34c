package splice_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/splice"
)

const pipeSize = 64 << 10

func TestEAGAINWithEmptyPipeMeansEmpty(t *testing.T) {
	source, _ := connection(t)
	p := borrow(t, pipeSize)
	fill(t, p, source.fd, 1<<20, splice.Empty)
	fill(t, p, source.fd, 1, splice.Empty)
}

// The socket is empty here, but Fill cannot know: with bytes in the pipe the same
// EAGAIN comes when the pipe has no slot left.
func TestEAGAINWithBytesInPipeMeansFull(t *testing.T) {
	source, client := connection(t)
	sink, server := connection(t)
	p := borrow(t, pipeSize)
	client.send([]byte("x"))
	source.arrived(1)
	fill(t, p, source.fd, 1<<20, splice.Moved)
	fill(t, p, source.fd, 1<<20, splice.Full)

	drain(t, p, sink.fd, splice.Moved)
	fill(t, p, source.fd, 1<<20, splice.Empty)
	if got := server.receive(1); got[0] != 'x' {
		t.Errorf("received %q", got)
	}
}

func TestShortSpliceDoesNotMeanEmpty(t *testing.T) {
	source, client := connection(t)
	sink, server := connection(t)
	p := borrow(t, pipeSize)
	data := pattern(150_000)
	source.set(unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	client.send(data)
	source.arrived(len(data))

	n := fill(t, p, source.fd, 1<<20, splice.Moved)
	if n >= len(data) || p.Pending() != n {
		t.Fatalf("moved %d bytes, %d pending: this pipe was to be too small for %d", n, p.Pending(), len(data))
	}
	if left := source.queued(); left != len(data)-n {
		t.Fatalf("%d bytes in the socket, want %d", left, len(data)-n)
	}
	total := 0
	for total < len(data) {
		if p.Pending() == 0 {
			fill(t, p, source.fd, 1<<20, splice.Moved)
		}
		total += drain(t, p, sink.fd, splice.Moved)
	}
	if !bytes.Equal(server.receive(len(data)), data) {
		t.Error("the bytes differ")
	}
}

func TestFillTakesNoMoreThanAsked(t *testing.T) {
	source, client := connection(t)
	p := borrow(t, pipeSize)
	client.send(pattern(1000))
	source.arrived(1000)
	if n := fill(t, p, source.fd, 10, splice.Moved); n != 10 {
		t.Errorf("moved %d bytes, asked for 10", n)
	}
	if left := source.queued(); left != 990 {
		t.Errorf("%d bytes left in the socket, want 990", left)
	}
}

// A length beyond what the kernel moves at once is cut, not refused.
func TestHugeMaxIsNotRefused(t *testing.T) {
	source, client := connection(t)
	p := borrow(t, pipeSize)
	for _, max := range []int{math.MaxInt32, math.MaxInt32 + 1, 1 << 40, math.MaxInt64} {
		client.send([]byte("x"))
		source.arrived(1)
		if n, st, err := p.Fill(source.fd, max); n != 1 || st != splice.Moved || err != nil {
			t.Errorf("max %d: %d bytes, status %d, error %v", max, n, st, err)
		}
	}
}

func TestFINMeansEnd(t *testing.T) {
	source, client := connection(t)
	p := borrow(t, pipeSize)
	client.send([]byte("last words"))
	client.shutdown()
	source.ready(unix.POLLRDHUP)
	if n := fill(t, p, source.fd, 1<<20, splice.Moved); n != len("last words") {
		t.Errorf("moved %d bytes", n)
	}
	fill(t, p, source.fd, 1<<20, splice.End)
	fill(t, p, source.fd, 1<<20, splice.End)
	if p.Pending() != len("last words") {
		t.Errorf("%d bytes pending", p.Pending())
	}
}

func TestResetMeansFailed(t *testing.T) {
	source, client := connection(t)
	p := borrow(t, pipeSize)
	client.reset()
	source.ready(unix.POLLHUP)
	if n, st, err := p.Fill(source.fd, 1<<20); n != 0 || st != splice.Failed || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%d bytes, status %d, error %v; want ECONNRESET", n, st, err)
	}
}

func TestBytesBeforeResetComeFirst(t *testing.T) {
	source, client := connection(t)
	p := borrow(t, pipeSize)
	client.send([]byte("tail"))
	source.arrived(4)
	client.reset()
	source.ready(unix.POLLHUP)
	fill(t, p, source.fd, 1<<20, splice.Moved)
	drained := make([]byte, 10)
	if n, err := p.Read(drained); err != nil || string(drained[:n]) != "tail" {
		t.Errorf("%q, %v", drained[:n], err)
	}
	fill(t, p, source.fd, 1<<20, splice.Failed)
}

func TestSourceThatCannotBeSplicedIsRefused(t *testing.T) {
	poller, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	check(t, err)
	defer unix.Close(poller)
	fill(t, borrow(t, pipeSize), poller, 1<<20, splice.Refused)
}

func TestClosedSourceMeansFailed(t *testing.T) {
	if n, st, err := borrow(t, pipeSize).Fill(-1, 1); n != 0 || st != splice.Failed || err != unix.EBADF {
		t.Errorf("%d bytes, status %d, error %v; want EBADF", n, st, err)
	}
}

// Urgent data is a wall for splice(2), and one that looks like an empty socket:
// who gets EPOLLPRI must go on with recv(2).
func TestFillStopsAtUrgentData(t *testing.T) {
	source, client := connection(t)
	p := borrow(t, pipeSize)
	source.set(unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	client.send([]byte("abc"))
	check(t, unix.Sendto(client.fd, []byte("!"), unix.MSG_OOB, nil))
	client.send([]byte("def"))
	source.arrived(3)
	source.ready(unix.POLLPRI)
	if n := fill(t, p, source.fd, 1<<20, splice.Moved); n != 3 {
		t.Errorf("moved %d bytes, want the 3 in front of the urgent one", n)
	}
	drained := make([]byte, 10)
	if _, err := p.Read(drained); err != nil {
		t.Fatal(err)
	}
	fill(t, p, source.fd, 1<<20, splice.Empty)
	if got := source.receive(4); string(got) != "!def" {
		t.Errorf("recv took %q", got)
	}
}
