package engine

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzHandedOverPair feeds an engine what another one could send as a pair, true or not,
// with real descriptors: it is refused, or lives, moves and ends, and nothing is left.
func FuzzHandedOverPair(f *testing.F) {
	client, server := netip.MustParseAddrPort("192.0.2.7:40000"), netip.MustParseAddrPort("[2001:db8::1]:443")
	for _, w := range []pairState{
		{ID: 7, Duration: time.Hour, Client: client, Destination: server, State: "open", Opened: true},
		{Client: server, Connected: client, State: "connecting", Silent: time.Hour, Directions: [2]directionState{{Pending: 3}, {}}},
		{Client: client, Destination: server, State: "open", Cause: 104, Directions: [2]directionState{
			{EOF: true, FinSent: true, Throttled: true, Most: 5},
			{Pending: 3, PausedFor: time.Hour, Ending: true, Urgent: true, Buffered: true, Broken: true},
		}},
		{Client: client, Destination: server, State: "waiting", Directions: [2]directionState{{Closing: true, Detached: true}}},
	} {
		head, err := json.Marshal(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(head, make([]byte, w.Directions[0].Pending+w.Directions[1].Pending), w.State != "waiting")
	}
	f.Add([]byte(`{"Client":"192.0.2.7:1","State":"waiting","Destination":"192.0.2.1:0"}`), []byte(nil), false)
	f.Add([]byte(`{"Client":"192.0.2.7:1","State":"connecting","Step":200,"Opened":true}`), []byte(nil), true)
	f.Add([]byte(`{"Client":"[fe80::1%x]:1","State":"open","Step":"none","Connected":"[::1]:0"}`), []byte(nil), true)
	f.Add([]byte(`{"State":"open","Directions":[{"Pending":-1},{"Pending":1}]}`), []byte(nil), true)
	f.Fuzz(func(t *testing.T, head, body []byte, both bool) {
		e, err := New(Options{Loops: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		l := e.loops[0]
		l.clock()
		fds, err := handedOverSockets()
		if err != nil {
			t.Fatal(err)
		}
		fr := frame{kind: framePair, head: head, body: body, fds: fds}
		if !both {
			unix.Close(fds[1])
			fr.fds = fds[:1]
		}
		w, err := fr.pair()
		if err != nil {
			fr.close()
			return
		}
		e.active.Add(1)
		l.takeIn(w, fr.fds, body)
		for range 3 {
			events, err := l.poller.Wait(0)
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range events {
				l.dispatch(ev)
			}
			l.serve()
			l.tick++
			l.onTick()
		}
		l.endAll(ReasonDrained)
		if l.count.Pending != 0 || l.env.Budget.Used != 0 || l.env.Queues.InUse() != 0 || l.wheel.count != 0 || e.active.Load() != 0 {
			t.Errorf("left behind: %d bytes pending, memory %d, %d buffers, %d timers, %d active",
				l.count.Pending, l.env.Budget.Used, l.env.Queues.InUse(), l.wheel.count, e.active.Load())
		}
	})
}

// handedOverSockets are two TCP sockets that were never connected.
func handedOverSockets() (fds []int, err error) {
	for range 2 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// FuzzFrame feeds a link any bytes: whole frames come out as they went in, nothing else
// does, and memory is not taken for what is only announced.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("TPRS\x00\x00\x00\x02\x00\x00\x00\x00{}"))
	f.Add([]byte("TPRP\x00\x00\x00\x02\x00\x00\x00\x03{}abc"))
	f.Add([]byte("TPRP\x00\x00\x00\x02\x7f\xff\xff\xff{}abc"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 64<<10 { // what the socket takes without a reader
			return
		}
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(ends[0])
		defer unix.Close(ends[1])
		if n, err := unix.Write(ends[0], stream); err != nil && len(stream) > 0 || n != len(stream) {
			t.Fatal(n, err)
		}
		unix.Shutdown(ends[0], unix.SHUT_WR)
		for rest := stream; ; {
			got, err := link{ends[1]}.receive()
			if err != nil {
				break
			}
			size := frameHeader + len(got.head) + len(got.body)
			if size > len(rest) || string(rest[frameHeader:size]) != string(got.head)+string(got.body) || rest[3] != byte(got.kind) {
				t.Fatalf("%q came out as %c %q %q", rest, got.kind, got.head, got.body)
			}
			var hello helloState
			var ln listenerState
			_, _ = got.parse(&hello), got.parse(&ln)
			rest = rest[size:]
		}
	})
}
