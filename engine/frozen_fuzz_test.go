package engine

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
)

// FuzzHandedOverPair feeds an engine what another one could send as a pair, true or not,
// with real descriptors: it is refused, or lives, moves and ends, and nothing is left.
func FuzzHandedOverPair(f *testing.F) {
	client, server := netip.MustParseAddrPort("192.0.2.7:40000"), netip.MustParseAddrPort("[2001:db8::1]:443")
	for _, w := range []handover.Record{
		{ID: 7, Duration: time.Hour, Client: client, Destination: server, State: "open", Opened: true},
		{Client: server, Connected: client, State: "connecting", Silent: time.Hour, Directions: [2]handover.Direction{{Pending: 3}, {}}},
		{Client: client, Destination: server, State: "open", Cause: 104, Directions: [2]handover.Direction{
			{EOF: true, FinSent: true, Throttled: true, Most: 5},
			{Pending: 3, PausedFor: time.Hour, Ending: true, Urgent: true, Buffered: true, Broken: true},
		}},
		{Client: client, Destination: server, State: "waiting", Directions: [2]handover.Direction{{Closing: true, Detached: true}}},
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
		l := oneLoop(t)
		l.clock()
		fds, err := handedOverSockets()
		if err != nil {
			t.Fatal(err)
		}
		fr := handover.Frame{Kind: handover.KindPair, Head: head, Body: body, FDs: fds}
		if !both {
			unix.Close(fds[1])
			fr.FDs = fds[:1]
		}
		p, err := fr.Pair()
		if err != nil {
			fr.Close()
			return
		}
		l.engine.active.Add(1)
		l.takeIn(p)
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
		if l.count.Pending != 0 || l.env.Budget.Used != 0 || l.env.Queues.InUse() != 0 || l.wheel.count != 0 || l.engine.active.Load() != 0 {
			t.Errorf("left behind: %d bytes pending, memory %d, %d buffers, %d timers, %d active",
				l.count.Pending, l.env.Budget.Used, l.env.Queues.InUse(), l.wheel.count, l.engine.active.Load())
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
