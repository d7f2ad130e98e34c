package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
)

// How a stream ended, as the program at its end was told. The errors of a connect
// that failed go by the names of their errno.
const (
	fin          = "FIN"           // read(2) gave 0
	reset        = "RST"           // read(2) gave ECONNRESET
	finThenReset = "FIN, then RST" // read(2) gave 0; later the connection was gone, and write(2) failed
)

// acknowledged stands for a number of bytes that timing decides: no fewer than the
// sender's kernel had seen acknowledged before the reset, and not out of order.
const acknowledged = -1

// view is what the program at one end saw of a connection. The zero view: nothing
// arrived, and no end came; the program ended the connection itself, or never
// had it.
type view struct {
	bytes  int64 // that arrived, each compared with the one that was sent
	ending string
}

// outcome is how a connection ended.
type outcome struct {
	client, server view
	reason         string // that the relay counted, a failed dial with its errno
}

// cell is a way in which a connection ends, and what must come of it, on every path,
// in every mode and both families.
type cell struct {
	section int
	name    string
	first   string // the end that comes first: client or server
	drive   func(s *stage, first, second *actor)
	want    outcome
	direct  *outcome // what the ends see without a relay, where that is different
	alone   bool     // without a relay there is no such situation
	slow    bool     // it takes seconds: all such cells are played at the same time
	except  *exception
}

// exception is what comes of a cell in some combinations.
type exception struct {
	in   func(combination) bool
	want outcome
}

// expected is what must come of a cell.
func (c cell) expected(in combination) outcome {
	want := c.want
	switch {
	case !in.relayed() && c.direct != nil:
		want = *c.direct
	case in.relayed() && c.except != nil && c.except.in(in):
		want = c.except.want
	}
	if !in.relayed() {
		want.reason = ""
	}
	return want
}

// batches are cells that are played at the same time: the slow ones, and each of the
// others by itself.
func batches(relayed bool) (all [][]cell) {
	var slow []cell
	for _, c := range cells() {
		switch {
		case c.alone && !relayed:
		case c.slow:
			slow = append(slow, c)
		default:
			all = append(all, []cell{c})
		}
	}
	return append(all, slow)
}

// batch is the name of the cell's batch.
func (c cell) batch() string {
	if c.slow {
		return "the slow ones"
	}
	return c.name
}

// stage is where a cell is played.
type stage struct {
	*gateway
	combination
	*places
	l              *listener // the server's
	cell           cell
	client, server *actor
	goes           netip.AddrPort // where the client goes, when it calls
	reason         string
}

func newStage(g *gateway, in combination, p *places, l *listener, c cell) *stage {
	s := &stage{gateway: g, combination: in, places: p, l: l, cell: c}
	s.client = &actor{s: s, who: "client", says: texts()[0]}
	s.server = &actor{s: s, who: "server", says: texts()[1]}
	return s
}

// open connects the two ends.
func (s *stage) open() {
	s.t.Helper()
	s.client.TCPConn, s.server.TCPConn = s.pair(s.l)
}

// outcome is what has come of the cell.
func (s *stage) outcome() outcome { return outcome{s.client.view, s.server.view, s.reason} }

// call connects to where there may be no server, and notes how that failed. The
// relay takes the connection before it knows, so its RST may come before
// connect(2) has returned, or after. It may be called from any goroutine.
func (s *stage) call(to netip.AddrPort) {
	s.goes = to
	c, err := s.tryDial(to)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, unix.ECONNRESET):
		s.client.ending = reset
	case errors.As(err, &errno):
		s.client.ending = unix.ErrnoName(errno)
	default:
		s.client.ending = fmt.Sprint("what nobody expects: ", err)
	}
}

// awaitBacklog waits until the kernel holds a connection that the listener has not accepted.
func (s *stage) awaitBacklog(l *listener) {
	s.t.Helper()
	s.await("a connection in the backlog", func() bool {
		return s.server.tcpInfo(l.TCPListener).Unacked == 1 // of a listener: its backlog
	})
}

// await waits for a condition.
func (s *stage) await(what string, ok func() bool) {
	s.t.Helper()
	s.until(what, func(engine.Stats) bool { return ok() })
}

// play plays cells at the same time and notes their outcomes.
func play(g *gateway, stages []*stage) {
	g.t.Helper()
	before := g.until("the pairs of cells that failed to end", func(now engine.Stats) bool { return now.Active == 0 })
	g.mu.Lock()
	g.ended = nil
	g.mu.Unlock()
	if len(stages) == 1 {
		stages[0].drive()
	} else {
		var wg sync.WaitGroup
		for _, s := range stages {
			wg.Go(s.drive)
		}
		wg.Wait()
	}
	if !stages[0].relayed() {
		if n := g.Stats().Accepted; n != 0 {
			g.t.Fatalf("%d connections came to the relay", n)
		}
		return
	}
	pairs := g.endedPairs(len(stages))
	after := g.until("the account", func(now engine.Stats) bool { return ended(now) == ended(before)+uint64(len(pairs)) && now.Active == 0 })
	told, opened := map[string]uint64{}, uint64(0)
	for _, p := range pairs {
		reason, errno := whatEnded(p)
		told[reason]++
		if p.Established {
			opened++
		}
		if errno != "" && p.Reason == engine.ReasonDialError {
			told[errno]++
			reason += " " + errno
		}
		for _, s := range stages {
			if len(stages) == 1 || s.goes == p.Destination {
				s.reason = reason
			}
		}
	}
	if counted := account(before, after); !maps.Equal(counted, told) || after.Opened != before.Opened+opened {
		g.t.Errorf("Stats counted %v and %d opened; the observer was told %v and %d", counted, after.Opened-before.Opened, told, opened)
	}
	if len(stages) == 1 {
		stages[0].checkPaths(before, after)
	}
}

// drive plays the cell.
func (s *stage) drive() {
	first, second := s.client, s.server
	if s.cell.first == "server" {
		first, second = second, first
	}
	s.cell.drive(s, first, second)
}

// ended is how many pairs have ended.
func ended(s engine.Stats) (n uint64) {
	for _, k := range s.Ended {
		n += k
	}
	return n
}

// account is what Stats counted in between: reasons, and errnos of dials.
func account(before, after engine.Stats) map[string]uint64 {
	counted := map[string]uint64{}
	for reason, n := range after.Ended {
		counted[reason.String()] = n - before.Ended[reason]
	}
	for errno, n := range after.DialErrors {
		counted[errno] = n - before.DialErrors[errno]
	}
	maps.DeleteFunc(counted, func(_ string, n uint64) bool { return n == 0 })
	return counted
}

// whatEnded is why a pair has ended: the reason, and the name of the errno.
func whatEnded(p engine.PairInfo) (reason, errno string) {
	var e unix.Errno
	if errors.As(p.Err, &e) {
		errno = unix.ErrnoName(e)
	}
	return p.Reason.String(), errno
}

// checkPaths holds that the bytes went the way that the combination is named after, and that
// those of a clean end were counted.
func (s *stage) checkPaths(before, after engine.Stats) {
	s.t.Helper()
	o := s.outcome()
	for _, d := range []struct {
		name             string
		buffered         bool
		spliced, through uint64
		arrived          int64
	}{
		{"upstream", s.buffers(true), after.UpstreamSplice - before.UpstreamSplice, after.UpstreamBuffer - before.UpstreamBuffer, o.server.bytes},
		{"downstream", s.buffers(false), after.DownstreamSplice - before.DownstreamSplice, after.DownstreamBuffer - before.DownstreamBuffer, o.client.bytes},
	} {
		right, wrong := d.spliced, d.through
		if d.buffered {
			right, wrong = wrong, right
		}
		if wrong != 0 || int64(right) < d.arrived || o.reason == engine.ReasonEOF.String() && int64(right) != d.arrived {
			s.t.Errorf("%s: %d bytes arrived; counted: %d spliced, %d buffered", d.name, d.arrived, d.spliced, d.through)
		}
	}
}
