package splice_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/splice"
)

// load sends data through a connection into p.
func load(t testing.TB, p *splice.Pipe, data []byte) {
	t.Helper()
	source, client := connection(t)
	for len(data) > 0 {
		n := min(len(data), 30_000)
		client.send(data[:n])
		source.arrived(n)
		for moved := 0; moved < n; {
			moved += fill(t, p, source.fd, n, splice.Moved)
		}
		data = data[n:]
	}
}

func TestDrainMovesEverything(t *testing.T) {
	sink, server := connection(t)
	p := borrow(t, pipeSize)
	data := pattern(10_000)
	load(t, p, data)
	if n := drain(t, p, sink.fd, splice.Moved); n != len(data) || p.Pending() != 0 {
		t.Errorf("moved %d bytes of %d, %d pending", n, len(data), p.Pending())
	}
	if !bytes.Equal(server.receive(len(data)), data) {
		t.Error("the bytes differ")
	}
}

func TestDrainOfEmptyPipeMovesNothing(t *testing.T) {
	sink, _ := connection(t)
	if n := drain(t, borrow(t, pipeSize), sink.fd, splice.Moved); n != 0 {
		t.Errorf("moved %d bytes out of nothing", n)
	}
}

func TestDrainIntoFullSocketIsFull(t *testing.T) {
	sink, server := connection(t)
	p := borrow(t, pipeSize)
	data := pattern(10_000)
	load(t, p, data)
	stuffing := sink.stuff()
	if n := drain(t, p, sink.fd, splice.Full); n != 0 || p.Pending() != len(data) {
		t.Fatalf("moved %d bytes, %d pending", n, p.Pending())
	}
	server.receive(stuffing)
	sink.ready(unix.POLLOUT)
	drain(t, p, sink.fd, splice.Moved)
	if !bytes.Equal(server.receive(len(data)), data) {
		t.Error("the bytes differ")
	}
}

func TestPartlyDrainedPipeGoesOnWhereItStopped(t *testing.T) {
	sink, server := connection(t)
	sink.set(unix.SOL_SOCKET, unix.SO_SNDBUF, 30_000)
	server.set(unix.SOL_SOCKET, unix.SO_RCVBUF, 30_000)
	p := borrow(t, 1<<20)
	data := pattern(300_000)
	load(t, p, data)
	n := drain(t, p, sink.fd, splice.Full)
	if n == 0 || n == len(data) || p.Pending() != len(data)-n {
		t.Fatalf("moved %d bytes of %d, %d pending", n, len(data), p.Pending())
	}
	if sink.writable() {
		t.Error("Full, and the sink is writable: no event will come")
	}
	got := server.receive(n)
	for p.Pending() > 0 {
		sink.ready(unix.POLLOUT)
		n, st, err := p.Drain(sink.fd)
		if err != nil || st != splice.Moved && st != splice.Full {
			t.Fatalf("status %d, error %v", st, err)
		}
		got = append(got, server.receive(n)...)
	}
	if !bytes.Equal(got, data) {
		t.Error("the bytes differ")
	}
}

// A signal ends splice(2) between two batches of slots, with a short count and a
// sink that takes more. Were that taken for Full, nobody would come back.
func TestSignalDoesNotMakeDrainLookFull(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := unix.Gettid()
	var draining, over atomic.Bool
	var bystander sync.WaitGroup
	bystander.Go(func() {
		for !over.Load() {
			if draining.Load() {
				_ = unix.Tgkill(unix.Getpid(), self, unix.SIGURG) // what the Go scheduler sends
			}
		}
	})
	defer bystander.Wait()
	defer over.Store(true)

	source, client := connection(t)
	sink, server := connection(t)
	source.set(unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	sink.set(unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	p := borrow(t, 1<<20)
	fragment := pattern(1000)
	for range 300 {
		for range 100 {
			client.send(fragment)
		}
		source.arrived(100 * len(fragment))
		for source.queued() > 0 {
			fill(t, p, source.fd, 1<<20, splice.Moved)
		}
		draining.Store(true)
		_, st, err := p.Drain(sink.fd)
		draining.Store(false)
		if err != nil {
			t.Fatal(err)
		}
		if st == splice.Full && sink.writable() {
			t.Fatalf("Full with %d bytes pending, and the sink is writable: no event will come", p.Pending())
		}
		for p.Pending() > 0 {
			sink.ready(unix.POLLOUT)
			if _, _, err := p.Drain(sink.fd); err != nil {
				t.Fatal(err)
			}
		}
		server.receive(100 * len(fragment))
	}
}

// With SPLICE_F_MORE the last segment would sit in the sink, unsent, for 200 ms.
func TestNoCorkOnLastSegment(t *testing.T) {
	for _, size := range []int{1, 100, 1448, 1449, 5000, 60_000} {
		sink, server := connection(t)
		p := borrow(t, 1<<20)
		load(t, p, pattern(size))
		drain(t, p, sink.fd, splice.Moved)
		if n := sink.unsent(); n != 0 {
			t.Errorf("%d bytes moved: the sink holds %d back", size, n)
		}
		server.receive(size)
	}
}

func TestDrainAfterResetFails(t *testing.T) {
	sink, server := connection(t)
	p := borrow(t, pipeSize)
	load(t, p, []byte("too late"))
	server.reset()
	sink.ready(unix.POLLHUP)
	n, st, err := p.Drain(sink.fd)
	if n != 0 || st != splice.Failed || !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("%d bytes, status %d, error %v; want ECONNRESET", n, st, err)
	}
	if p.Pending() != len("too late") {
		t.Errorf("%d bytes pending", p.Pending())
	}
}

func TestDrainAfterShutdownFails(t *testing.T) {
	sink, _ := connection(t)
	p := borrow(t, pipeSize)
	load(t, p, []byte("too late"))
	sink.shutdown()
	if _, st, err := p.Drain(sink.fd); st != splice.Failed || err != unix.EPIPE {
		t.Errorf("status %d, error %v; want EPIPE", st, err)
	}
}

// What is in the pipe of a sink that refuses must still come out.
func TestRefusedBytesCanBeRead(t *testing.T) {
	file, err := unix.Open(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_CLOEXEC, 0o600)
	check(t, err)
	defer unix.Close(file)
	poller, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	check(t, err)
	defer unix.Close(poller)
	for what, sink := range map[string]int{"file opened with O_APPEND": file, "epoll instance": poller} {
		p := borrow(t, pipeSize)
		data := pattern(5000)
		load(t, p, data)
		if n := drain(t, p, sink, splice.Refused); n != 0 || p.Pending() != len(data) {
			t.Fatalf("%s: moved %d bytes, %d pending", what, n, p.Pending())
		}
		var got []byte
		b := make([]byte, 777)
		for p.Pending() > 0 {
			n, err := p.Read(b)
			check(t, err)
			got = append(got, b[:n]...)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%s: the bytes differ", what)
		}
	}
}
