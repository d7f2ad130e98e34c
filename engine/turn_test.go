package engine

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/flowcontrol"
	"github.com/tprelay/tprelay/engine/internal/pump"
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
	d.Set(pump.Readable)
	l.env.Budget.Used = l.engine.options.MemoryLimit
	if again := l.turn(p, upstream); again || !d.Is(pump.Starved) || !d.Is(pump.Readable) || len(l.memWaiters) != 1 {
		t.Errorf("again %v, starved %v, readable %v, %d wait for memory", again, d.Is(pump.Starved), d.Is(pump.Readable), len(l.memWaiters))
	}
	l.env.Budget.Used = 0
	l.retryStarved()
	if d.Is(pump.Starved) || !p.queued {
		t.Errorf("not tried again: starved %v, queued %v", d.Is(pump.Starved), p.queued)
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
	p.dir[upstream].Pending = 1000
	if !l.sampleSink(p, upstream) || !l.sampleSource(p, upstream) {
		t.Fatal("no TCP_INFO")
	}
	l.limit(p, upstream, flowcontrol.LimitsAt(0, 0, &l.sink, &l.source, l.mostTuned()))
	if d := &p.dir[upstream]; !d.Is(pump.Throttled) || d.PendingLimit == 0 {
		t.Errorf("throttled %v, at most %d pending: bytes wait, and nothing leaves", d.Is(pump.Throttled), d.PendingLimit)
	}
	l.pairs.put(p)
}
