package handover_test

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/tproxy"
)

var client = netip.MustParseAddrPort("192.0.2.7:40000")

// waiting is a pair with one descriptor.
func waiting(id uint64, fd int) handover.Pair {
	return handover.Pair{Record: handover.Record{ID: id, Client: client, State: handover.Waiting}, FDs: []int{fd}}
}

// conversation are both sides, and the connections between them.
func conversation(t *testing.T) (s *handover.Sender, r *handover.Receiver, conns [2]*net.UnixConn) {
	t.Helper()
	links, conns := links(t)
	return handover.NewSender(links[0]), handover.NewReceiver(links[1]), conns
}

// begun is a conversation that has got as far as ready.
func begun(t *testing.T) (s *handover.Sender, r *handover.Receiver, conns [2]*net.UnixConn) {
	t.Helper()
	s, r, conns = conversation(t)
	err := s.Greet(7, 3, nil)
	if err == nil {
		_, _, err = r.Greet()
	}
	if err == nil {
		err = r.Ready(9)
	}
	room := 0
	if err == nil {
		room, err = s.AwaitReady()
	}
	if err != nil || room != 9 {
		t.Fatalf("room for %d: %v", room, err)
	}
	return s, r, conns
}

// TestHandOver goes through a whole conversation: everything arrives as it was sent.
func TestHandOver(t *testing.T) {
	s, r, _ := conversation(t)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	listeners := []handover.Socket{
		{Listener: handover.Listener{Address: netip.MustParseAddrPort("[fe80::1%2]:80"), Mode: tproxy.TPROXY}, FD: ends[0]},
		{Listener: handover.Listener{Address: netip.MustParseAddrPort("127.0.0.1:80"), Mode: tproxy.Forward}, FD: ends[1]},
	}
	open := handover.Pair{
		Record: handover.Record{
			ID: 7, Duration: time.Hour, Silent: time.Second, Client: client, Destination: listeners[1].Address, Connected: client,
			Listener: listeners[1].Listener, Step: tproxy.LevelIP, State: handover.Open, Opened: true, Cause: 104,
			Directions: [2]handover.Direction{
				{Bytes: 1 << 40, Messages: 3, Pauses: 4, PausedFor: time.Minute, EOF: true, FinSent: true, Throttled: true, Most: 5},
				{Ending: true, Urgent: true, Buffered: true, FINCame: true, Detached: true, Closing: true, Broken: true, ACKHeld: true},
			},
		},
		FDs:     ends[:],
		Pending: [2][]byte{[]byte("up"), []byte("down!")},
	}
	sent := make(chan error, 1)
	go func() {
		err := s.Greet(41, 3, listeners)
		if err == nil {
			_, err = s.AwaitReady()
		}
		for _, batch := range [][]handover.Pair{{open, waiting(8, ends[1])}, {}, {waiting(9, ends[0])}} {
			if err == nil {
				err = s.Offer(batch)
			}
			if err == nil {
				err = s.Commit()
			}
		}
		if err == nil {
			err = s.Done()
		}
		sent <- err
	}()
	hello, sockets, err := r.Greet()
	defer handover.CloseSockets(sockets)
	if want := (handover.Hello{Version: handover.Version, Generation: 41, Sockets: 2, Pairs: 3}); err != nil || hello != want {
		t.Fatalf("%+v, %v", hello, err)
	}
	for i, socket := range sockets {
		if socket.Listener != listeners[i].Listener {
			t.Errorf("listener %d: %+v", i, socket)
		}
	}
	if err := r.Ready(3); err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for {
		pairs, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pairs {
			ids = append(ids, p.ID)
			if p.ID == open.ID {
				want := open.Record
				want.Directions[0].Pending, want.Directions[1].Pending = 2, 5
				if p.Record != want || string(p.Pending[0]) != "up" || string(p.Pending[1]) != "down!" || len(p.FDs) != 2 {
					t.Errorf("%+v came out as %+v", open, p)
				}
			}
			p.Close()
		}
	}
	if err := <-sent; err != nil || !slices.Equal(ids, []uint64{7, 8, 9}) {
		t.Errorf("%v, %v", ids, err)
	}
}

// TestSenderKeepsToItsStates: what is called too early, twice or after an error is an error, sends
// nothing, and nothing can be committed after it.
func TestSenderKeepsToItsStates(t *testing.T) {
	greet := func(s *handover.Sender) error { return s.Greet(0, 0, nil) }
	ready := func(s *handover.Sender) error { _, err := s.AwaitReady(); return err }
	offer := func(s *handover.Sender) error { return s.Offer(nil) }
	fresh := func(t *testing.T) (*handover.Sender, [2]*net.UnixConn) { s, _, c := conversation(t); return s, c }
	started := func(t *testing.T) (*handover.Sender, [2]*net.UnixConn) { s, _, c := begun(t); return s, c }
	offered := func(t *testing.T) (*handover.Sender, [2]*net.UnixConn) {
		s, r, c := begun(t)
		next := make(chan error)
		go func() { _, err := r.Next(); next <- err }()
		if err := s.Offer(nil); err != nil {
			t.Fatal(err)
		}
		c[1].SetReadDeadline(time.Unix(1, 0)) // Next waits for the commit
		<-next
		c[1].SetReadDeadline(time.Time{})
		return s, c
	}
	for what, c := range map[string]struct {
		from func(*testing.T) (*handover.Sender, [2]*net.UnixConn)
		call func(*handover.Sender) error
	}{
		"ready before greet":   {fresh, ready},
		"offer before greet":   {fresh, offer},
		"commit before greet":  {fresh, (*handover.Sender).Commit},
		"done before greet":    {fresh, (*handover.Sender).Done},
		"greet twice":          {started, greet},
		"ready twice":          {started, ready},
		"commit without offer": {started, (*handover.Sender).Commit},
		"offer twice":          {offered, offer},
		"done before commit":   {offered, (*handover.Sender).Done},
	} {
		t.Run(what, func(t *testing.T) {
			s, conns := c.from(t)
			first := c.call(s)
			if first == nil || !strings.Contains(first.Error(), "the sender is") {
				t.Errorf("%v", first)
			}
			if err := s.Commit(); err != first {
				t.Errorf("Commit after it: %v", err)
			}
			conns[0].Close()
			if rest, err := io.ReadAll(conns[1]); len(rest) > 0 || err != nil {
				t.Errorf("it has sent %q, %v", rest, err)
			}
		})
	}
}

// TestReceiverRefusesWhatIsNotExpected, and closes what it holds.
func TestReceiverRefusesWhatIsNotExpected(t *testing.T) {
	pair := func(k *handover.Link, fd int) error { return k.SendPair(waiting(1, fd)) }
	says := func(kind handover.Kind) func(*handover.Link, int) error {
		return func(k *handover.Link, _ int) error { return k.Send(kind, nil, nil) }
	}
	type words = []func(k *handover.Link, fd int) error
	for what, c := range map[string]words{
		"a commit of what was not acknowledged": {pair, says(handover.KindCommit)},
		"a commit twice":                        {pair, says(handover.KindSync), says(handover.KindCommit), says(handover.KindCommit)},
		"a pair behind the acknowledgement":     {pair, says(handover.KindSync), pair},
		"sync twice":                            {pair, says(handover.KindSync), says(handover.KindSync)},
		"done before the commit":                {pair, says(handover.KindDone)},
		"done behind the acknowledgement":       {pair, says(handover.KindSync), says(handover.KindDone)},
		"hello in the middle":                   {pair, says(handover.KindHello)},
		"an unknown kind":                       {pair, says('X')},
	} {
		t.Run(what, func(t *testing.T) {
			_, r, conns := begun(t)
			link, err := handover.NewLink(conns[0])
			if err != nil {
				t.Fatal(err)
			}
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(ends[1])
			for _, say := range c {
				if err := say(link, ends[0]); err != nil {
					t.Fatal(err)
				}
			}
			unix.Close(ends[0])
			for err == nil {
				var pairs []handover.Pair
				pairs, err = r.Next()
				for _, p := range pairs {
					p.Close() // as the new engine may; what it held when it failed it must close by itself
				}
			}
			if !strings.Contains(err.Error(), "is not expected now") {
				t.Errorf("%v", err)
			}
			if n, _, err := unix.Recvfrom(ends[1], make([]byte, 1), unix.MSG_DONTWAIT); n != 0 || err != nil {
				t.Errorf("the pair is still open: %d, %v", n, err)
			}
		})
	}
}

// TestReceiverKeepsToItsStates: calls in the wrong order are errors.
func TestReceiverKeepsToItsStates(t *testing.T) {
	_, r, _ := conversation(t)
	if err := r.Ready(0); err == nil || !strings.Contains(err.Error(), "the receiver is new, not greeted") {
		t.Errorf("Ready before Greet: %v", err)
	}
	_, r, _ = begun(t)
	if _, _, err := r.Greet(); err == nil || !strings.Contains(err.Error(), "the receiver is holding, not new") {
		t.Errorf("Greet twice: %v", err)
	}
}

// TestGreetRefuses what is said first if it is of another version, or damaged.
func TestGreetRefuses(t *testing.T) {
	hello := func(version, sockets int) func(*handover.Link) error {
		return func(k *handover.Link) error {
			return k.Send(handover.KindHello, handover.Hello{Version: version, Sockets: sockets}, nil)
		}
	}
	for want, say := range map[string][]func(*handover.Link) error{
		"the other side speaks version 1, this one 2; restart instead": {hello(1, 0)},
		"a listener came with 0 descriptors": {hello(handover.Version, 1), func(k *handover.Link) error {
			return k.Send(handover.KindListener, handover.Listener{Address: client, Mode: tproxy.Forward}, nil)
		}},
		"the other side said 'L', not 'H'": {func(k *handover.Link) error { return k.Send(handover.KindListener, nil, nil) }},
		"frame L: ": {hello(handover.Version, 2), func(k *handover.Link) error {
			return k.Send(handover.KindListener, handover.Listener{Address: client, Mode: tproxy.Forward}, []int{0})
		}, func(k *handover.Link) error {
			return k.Send(handover.KindListener, map[string]any{"Mode": "none of these"}, []int{0})
		}},
		"frame H: ": {func(k *handover.Link) error { return k.Send(handover.KindHello, map[string]any{"Version": "two"}, nil) }},
	} {
		_, r, conns := conversation(t)
		link, err := handover.NewLink(conns[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range say {
			if err := f(link); err != nil {
				t.Fatal(err)
			}
		}
		before := lowestFree(t)
		if _, sockets, err := r.Greet(); err == nil || sockets != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if after := lowestFree(t); after != before {
			t.Errorf("%s: descriptor %d is open", want, before)
		}
	}
}

// TestPairIsChecked: the pending bytes must add up, and the descriptors fit the state.
func TestPairIsChecked(t *testing.T) {
	for _, c := range []struct {
		head, body string
		fds        int
		want       string // in the error; empty: it is right
	}{
		{`{"Client":"192.0.2.7:1","State":"open","Directions":[{"Pending":1},{"Pending":2}]}`, "abc", 2, ""},
		{`{"Client":"192.0.2.7:1","State":"waiting","Future":1}`, "", 1, ""},
		{`{"Client":"192.0.2.7:1","State":"open"}`, "", 1, "in state open with 1 descriptors"},
		{`{"Client":"192.0.2.7:1","State":"waiting"}`, "", 2, "in state waiting with 2 descriptors"},
		{`{"Client":"192.0.2.7:1","State":"frozen"}`, "", 2, `in state "frozen"`},
		{`{"State":"connecting"}`, "", 2, "without a client"},
		{`{"Client":"192.0.2.7:1","State":"open","Directions":[{"Pending":1},{"Pending":2}]}`, "ab", 2, "2 pending bytes, and 1 came"},
		{`{"Client":"192.0.2.7:1","State":"open","Directions":[{"Pending":1},{"Pending":2}]}`, "abcd", 2, "1 bytes too many"},
		{`{"Client":"192.0.2.7:1","State":"open","Directions":[{"Pending":-1},{"Pending":1}]}`, "", 2, "-1 pending bytes"},
		{`{"Client":"192.0.2.7:1","State":"open","Silent":-1}`, "", 2, "silent for -1ns"},
		{`{"Client":"192.0.2.7:1","State":"open","Directions":[{"PausedFor":-1}]}`, "", 2, "paused for -1ns"},
		{`{"Client":`, "", 2, "frame P"},
	} {
		f := handover.Frame{Kind: handover.KindPair, Head: []byte(c.head), Body: []byte(c.body), FDs: make([]int, c.fds)}
		p, err := f.Pair()
		if c.want == "" && (err != nil || string(p.Pending[0])+string(p.Pending[1]) != c.body) {
			t.Errorf("%s: %v, %q", c.head, err, p.Pending)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %s", c.head, err, c.want)
		}
	}
}

// TestWireFormatStays: older and newer engines of the same version read these names.
func TestWireFormatStays(t *testing.T) {
	links, _ := links(t)
	p := waiting(7, 0)
	p.Directions[0] = handover.Direction{EOF: true, FinSent: true, Most: 3}
	p.Pending[1] = []byte("ab")
	if err := links[0].SendPair(p); err != nil {
		t.Fatal(err)
	}
	f, err := links[1].Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got map[string]any
	if err := json.Unmarshal(f.Head, &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range got {
		names = append(names, name)
	}
	for name := range got["Directions"].([]any)[0].(map[string]any) {
		names = append(names, "Directions."+name)
	}
	slices.Sort(names)
	const want = "Cause Client Connected Destination Directions " +
		"Directions.ACKHeld Directions.Broken Directions.Buffered Directions.Bytes Directions.Closing Directions.Detached " +
		"Directions.EOF Directions.Ending Directions.FINCame Directions.FinSent Directions.Messages Directions.Most " +
		"Directions.PausedFor Directions.Pauses Directions.Pending Directions.Throttled Directions.Urgent " +
		"Duration ID Opened Silent State Step"
	if text := strings.Join(names, " "); text != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	if string(f.Kind) != "P" || string(f.Body) != "ab" || got["State"] != "waiting" || got["Client"] != "192.0.2.7:40000" {
		t.Errorf("%c %s %s", f.Kind, f.Head, f.Body)
	}
	if err := links[0].SendNow(handover.KindDone); err != nil {
		t.Fatal(err)
	}
	if f, err := links[1].Receive(); err != nil || f.Kind != 'D' || string(f.Head) != "{}" || len(f.Body) > 0 {
		t.Errorf("%+v, %v", f, err)
	}
}
