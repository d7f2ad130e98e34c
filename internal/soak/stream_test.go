package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// stream is one connection, as both ends see it.
type stream struct {
	id     uint64
	plan   string
	v6     bool
	life   *life
	client netip.AddrPort
	script script
	began  time.Time
	joined atomic.Bool // the server's end has its header
}

// The header names the stream to the server: "soak", 16 hexadecimal digits, a newline.
const headerSize = len("soak") + 16 + 1

func (s *stream) header() []byte { return fmt.Appendf(nil, "soak%016x\n", s.id) }

func parseHeader(b []byte) (id uint64, err error) {
	if len(b) != headerSize || string(b[:4]) != "soak" || b[headerSize-1] != '\n' {
		return 0, fmt.Errorf("%w: header %q", errCorrupt, b)
	}
	if id, err = strconv.ParseUint(string(b[4:headerSize-1]), 16, 64); err != nil {
		return 0, fmt.Errorf("%w: header %q", errCorrupt, b)
	}
	return id, nil
}

// contents are what goes each way.
func (s *stream) contents() (up, down content) {
	return content(s.id * 2), content(s.id*2 + 1)
}

// streams are all streams of a run.
type streams struct {
	ctx    context.Context
	ledger *ledger
	fail   func(format string, args ...any)

	// gate is held for reading while a stream is under way. Its writer has silence on the client's
	// side.
	gate sync.RWMutex

	mu   sync.Mutex
	next uint64
	open map[uint64]*stream
	ends map[*end]struct{} // those that the server plays, and the client's

	tally tally
}

// tally counts what became of ends and of their bytes.
type tally struct {
	begun     map[string]int // streams by plan
	complete  int            // ends: all came, then a FIN
	planned   int            // ends cut because one end wanted that
	cut       map[string]int // ends cut by a fault, by its kind
	notBegun  int
	failed    int
	truncated int
	lost      int64
	up, down  int64
	labels    int
	replaced  int
}

// start makes a stream, which began then, known to the server.
func (ss *streams) start(began time.Time, name string, v6 bool, life *life, script script) *stream {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.next++
	s := &stream{id: ss.next, plan: name, v6: v6, life: life, script: script, began: began}
	ss.open[s.id] = s
	if ss.tally.begun == nil {
		ss.tally.begun = map[string]int{}
		ss.tally.cut = map[string]int{}
	}
	ss.tally.begun[name]++
	return s
}

// join makes e the server's end of the stream that a header names. It can be joined once.
func (ss *streams) join(id uint64, e *end) (*stream, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.open[id]
	if s == nil {
		return nil, fmt.Errorf("%w: no stream has number %d", errCorrupt, id)
	}
	if s.joined.Swap(true) {
		return nil, fmt.Errorf("%w: stream %d came twice", errCorrupt, id)
	}
	e.stream = s // older looks at it
	return s, nil
}

// forget drops streams that began before, and that nobody will join any more.
func (ss *streams) forget(before time.Time) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for id, s := range ss.open {
		if s.began.Before(before) {
			delete(ss.open, id)
		}
	}
}

// track keeps an end where abort finds it.
func (ss *streams) track(e *end) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.ends[e] = struct{}{}
}

// older lists up to ten ends whose streams began before.
func (ss *streams) older(before time.Time) string {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	var found []string
	for e := range ss.ends {
		if e.stream != nil && e.began.Before(before) && len(found) < 10 {
			found = append(found, fmt.Sprintf("%d: %s's %s", e.id, e.plan, e.name))
		}
	}
	return strings.Join(found, ", ")
}

// active is the number of ends that are under way.
func (ss *streams) active() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.ends)
}

// abort resets all connections.
func (ss *streams) abort() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for e := range ss.ends {
		e.reset()
	}
}

// judge closes an end whose script has ended with err, and says what that means.
func (ss *streams) judge(e *end, err error) {
	if err == nil {
		err = e.conn.Close()
		if errors.Is(err, net.ErrClosed) {
			err = nil // by the script
		}
	} else {
		e.reset() // a FIN would say that all was well
	}
	ss.mu.Lock()
	delete(ss.ends, e)
	t := &ss.tally
	if e.name == "server" {
		t.up += e.in.at
	} else {
		t.down += e.in.at
	}
	t.labels += e.in.labels
	t.replaced += e.in.replacements
	ss.mu.Unlock()
	ss.account(e.stream, e.String(), e.due-e.in.at, err)
}

// account counts how an end ended, or that it never was.
func (ss *streams) account(s *stream, who string, missing int64, err error) {
	if ss.ctx.Err() != nil {
		return // all were aborted
	}
	excuse, excused := "", false
	if isCut(err) && !s.script.resets {
		excuse, excused = ss.ledger.excuse(s.began, s.joined.Load())
	}
	planned := isCut(err) && s.script.resets
	ss.mu.Lock()
	t := &ss.tally
	switch {
	case err == nil:
		t.complete++
	case planned:
		t.planned++
	case excused:
		t.cut[excuse]++
	case errors.Is(err, errNotBegun):
		t.notBegun++
	default:
		t.failed++
	}
	if errors.Is(err, errTruncated) {
		t.truncated++
		t.lost += missing
	}
	ss.mu.Unlock()
	if err == nil || planned || excused || errors.Is(err, errNotBegun) {
		return
	}
	ss.fail("stream %d (%s, IPv6 %v, began %s, joined %v): %s: %v; faults meanwhile: %v; relay %s; it says: %s",
		s.id, s.plan, s.v6, s.began.Format("15:04:05.000"), s.joined.Load(), who, err, ss.ledger.during(s.began), s.life, s.life.saidOf(s))
}

// worker is a client that opens one stream after the other.
type worker struct {
	*world
	port uint16 // its own, for streams that come from the same port again
	rand *rand.Rand
}

// work runs streams until ctx ends.
func (w *worker) work(ctx context.Context) {
	for ctx.Err() == nil {
		w.streams.gate.RLock()
		if ctx.Err() == nil {
			w.one()
		}
		w.streams.gate.RUnlock()
		w.rest(40 * time.Millisecond)
	}
}

// rest waits, at most for d.
func (w *worker) rest(d time.Duration) {
	pause(w.streams.ctx, time.Duration(w.rand.Int64N(int64(d))))
}

// one runs a stream of a kind that fits the relay which runs now.
func (w *worker) one() {
	began := time.Now() // before we look whom to ask
	life := w.life.Load()
	kind := drawPlan(w.rand, life)
	script := kind.draw(w.rand, life)
	s := w.streams.start(began, kind.name, w.rand.IntN(2) == 0, life, script)
	conn, err := w.dial(s, life)
	switch {
	case script.hasty && err != nil:
		return
	case err != nil:
		w.streams.account(s, "client", 0, err)
		w.rest(time.Second) // it will not be better at once
		return
	}
	s.client = netip.MustParseAddrPort(conn.LocalAddr().String())
	up, down := s.contents()
	e := newEnd(w.streams.ctx, s, "client", conn, up, down)
	w.streams.track(e)
	if !script.silent {
		err = e.sendHeader()
	}
	if err == nil {
		err = script.client(e)
	}
	w.streams.judge(e, err)
}

// dialPatience is longer than any time during which no relay listens.
const dialPatience = 45 * time.Second

func (w *worker) dial(s *stream, life *life) (net.Conn, error) {
	to := w.address(s.script.to, s.v6, life)
	patience := dialPatience
	if s.script.hasty {
		patience = time.Duration(w.rand.IntN(3000)) * time.Microsecond
	}
	ctx, cancel := context.WithTimeout(w.streams.ctx, patience)
	defer cancel()
	if !s.script.samePort {
		return w.lab.H1.Dial(ctx, "tcp", to.String())
	}
	from := w.lab.H1.Addr4
	if s.v6 {
		from = w.lab.H1.Addr6
	}
	c, err := w.lab.H1.DialFrom(ctx, "tcp", netip.AddrPortFrom(from, w.port).String(), to.String())
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil, fmt.Errorf("%w: %w", errNotBegun, err)
	}
	return c, err
}
