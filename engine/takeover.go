package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/intercept"
)

// TakeOver makes an engine that takes the listeners and the live pairs of another
// process's engine over, which calls HandOver with the other end of fd. It is New for
// the rest: a listener of the options uses the sockets that come over fd with its
// address and mode, and is opened where none do; what the options do not name is no
// longer listened on. It fails where the limit for descriptors (RLIMIT_NOFILE) cannot hold the
// pairs that will come. fd is the engine's when TakeOver has succeeded, and it is closed when the
// hand-over is done.
//
// Run says that it is ready, and takes the pairs in. It accepts when it has them all, or when the
// other process is gone. Where it cannot go on, for want of descriptors for example, Run resets
// what it has and returns the error: the other engine goes on with the rest.
func TakeOver(options Options, fd int) (*Engine, error) {
	k := link{fd}
	f, err := k.expect(frameHello)
	if err != nil {
		return nil, err
	}
	f.close()
	var hello helloState
	if err := f.parse(&hello); err != nil {
		return nil, err
	}
	if hello.Version != wireVersion {
		return nil, fmt.Errorf("hand-over: the other side speaks version %d, this one %d; restart instead", hello.Version, wireVersion)
	}
	sockets, err := k.receiveSockets(hello.Sockets)
	if err != nil {
		closeSockets(sockets)
		return nil, err
	}
	rest := sockets
	options.Listeners = slices.Clone(options.Listeners)
	for i := range options.Listeners {
		if err := options.Listeners[i].numericZones(); err != nil {
			closeSockets(sockets)
			return nil, err
		}
		rest = options.Listeners[i].takeSockets(rest)
	}
	e, err := New(options)
	if err != nil {
		closeSockets(sockets)
		return nil, err
	}
	for _, s := range rest {
		e.options.Logger.Warn("no longer listening", "listen", s.Address, "mode", s.Mode)
	}
	closeSockets(rest)
	if room, err := roomForPairs(); err != nil || room < hello.Pairs {
		e.discard()
		if err == nil {
			err = roomError(room, hello.Pairs)
		}
		return nil, err
	}
	e.generation = hello.Generation + 1
	e.inherits = &k
	for _, l := range e.loops {
		l.stopAccepting(true)
	}
	return e, nil
}

// takeOverReserve is how many descriptors are left to the rest of the process while pairs come
// over: to clients of an admin end, for example.
const takeOverReserve = 16

// roomForPairs is how many pairs can come over before the process runs out of descriptors.
func roomForPairs() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	free, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0) // the lowest number that is free
	if err != nil {
		return 0, fmt.Errorf("hand-over: %w", err)
	}
	unix.Close(free)
	return max(int(min(limit.Cur, math.MaxInt32))-takeOverReserve-free, 0) / 2, nil
}

func roomError(room, pairs int) error {
	return fmt.Errorf("hand-over: the new process has descriptors for %d connections, and %d are to come; raise the limit (ulimit -n, LimitNOFILE)", room, pairs)
}

// socket is a listening socket that came over.
type socket struct {
	listenerState
	fd int
}

// receiveSockets waits for n listening sockets. Those that came before an error are
// returned with it.
func (k link) receiveSockets(n int) (sockets []socket, err error) {
	for range n {
		f, err := k.expect(frameListener)
		if err != nil {
			return sockets, err
		}
		if len(f.fds) != 1 {
			f.close()
			return sockets, fmt.Errorf("hand-over: a listener came with %d descriptors", len(f.fds))
		}
		s := socket{fd: f.fds[0]}
		err = f.parse(&s.listenerState)
		sockets = append(sockets, s)
		if err != nil {
			return sockets, err
		}
	}
	return sockets, nil
}

func closeSockets(sockets []socket) {
	for _, s := range sockets {
		unix.Close(s.fd)
	}
}

// takeSockets takes those that are for l and gives the others back.
func (l *Listener) takeSockets(sockets []socket) (others []socket) {
	if len(l.Sockets) > 0 { // the caller's own
		return sockets
	}
	for _, s := range sockets {
		port := l.Address.Port()
		if port == 0 && len(l.inherited) == 0 || port == s.Address.Port() {
			if l.Address.Addr() == s.Address.Addr() && l.Mode == s.Mode {
				l.Address = s.Address
				l.inherited = append(l.inherited, s.fd)
				continue
			}
		}
		others = append(others, s)
	}
	return others
}

// takeIn takes the pairs in that come over, until there are no more, and begins to accept. It
// runs beside the loops, and ends at the latest when they have. On error it ends the engine.
func (e *Engine) takeIn(k link) error {
	n, err := e.takePairs(k)
	e.mu.Lock()
	e.inherits = nil
	e.mu.Unlock()
	switch {
	case e.runs() != nil:
		err = nil // nobody is to take anything any more
	case err == nil:
		e.options.Logger.Info("took over", "pairs", n)
	case errors.Is(err, errLink):
		e.options.Logger.Warn("the process before has ended in the middle of the hand-over; this one goes on", "pairs", n, "err", err)
		err = nil
	default:
		err = fmt.Errorf("%w (after %d pairs had moved)", err, n)
		e.each((*loop).abort)
	}
	if err == nil {
		e.ask(func(l *loop) { l.stopAccepting(false) })
	}
	unix.Close(k.fd)
	return err
}

// takesOver: pairs may still come over.
func (e *Engine) takesOver() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inherits != nil
}

// taking is a hand-over under way, seen from the new engine.
type taking struct {
	link
	room  int                                 // for so many pairs
	start func(pairState, []int, []byte) bool // serves a pair, whose descriptors are its own then
	held  []heldPair
	acked bool // the other side may commit what is held
	taken int
}

// heldPair is a pair that is not ours yet.
type heldPair struct {
	state pairState
	fds   []int
	body  []byte
}

// takePairs says how many came. The error is errLink when the link came to its end early.
func (e *Engine) takePairs(k link) (n int, err error) {
	e.ask(func(*loop) {}) // every loop runs
	room, err := roomForPairs()
	if err != nil {
		return 0, err
	}
	t := taking{link: k, room: room, start: e.startPair}
	err = t.run()
	return t.taken, err
}

// run takes pairs until the other side is done. Errors of sending are passed over: only what
// comes tells what is ours, and the other side can close the link after a commit that is still to
// be read.
func (t *taking) run() error {
	defer t.drop()
	_ = t.send(frameReady, readyState{t.room}, nil)
	for {
		f, err := t.receive()
		if err != nil {
			return err
		}
		done, err := t.take(&f)
		f.close()
		if done || err != nil {
			return err
		}
	}
}

// take takes in one frame. Done: it was the last.
func (t *taking) take(f *frame) (done bool, err error) {
	switch {
	case f.kind == framePair && !t.acked:
		state, err := f.pair()
		if err != nil {
			return false, err
		}
		t.held = append(t.held, heldPair{state, f.fds, f.body})
		f.fds = nil
	case f.kind == frameSync && !t.acked:
		t.acked = true
		_ = t.send(frameAck, nil, nil)
	case f.kind == frameCommit && t.acked:
		return false, t.commit()
	case f.kind == frameDone && len(t.held) == 0:
		return true, nil
	default:
		return false, fmt.Errorf("hand-over: frame %q is not expected now", byte(f.kind))
	}
	return false, nil
}

// commit starts the pairs that are held: they are ours.
func (t *taking) commit() error {
	t.acked = false
	for len(t.held) > 0 {
		if h := t.held[0]; !t.start(h.state, h.fds, h.body) {
			return ErrClosed
		}
		t.held = t.held[1:]
		t.taken++
	}
	return nil
}

// drop closes what is held: it is the other side's, or has lost its owner and is reset.
func (t *taking) drop() {
	for _, h := range t.held {
		for _, fd := range h.fds {
			unix.Close(fd)
		}
	}
	t.held = nil
}

// startPair gives a pair to a loop. False: the loop has ended.
func (e *Engine) startPair(w pairState, fds []int, body []byte) bool {
	l := e.loops[e.next.Add(1)%uint64(len(e.loops))]
	e.active.Add(1)
	if !l.mailbox.post(func(l *loop) { l.takeIn(w, fds, body) }) {
		e.leave()
		return false
	}
	return true
}

// pair reads and checks a pair's state.
func (f *frame) pair() (w pairState, err error) {
	if err := f.parse(&w); err != nil {
		return w, err
	}
	want := 2
	if w.State == stateNames[stateWaiting] {
		want = 1
	}
	pending := 0
	for _, d := range w.Directions {
		if d.Pending < 0 || d.PausedFor < 0 || w.Silent < 0 {
			return w, fmt.Errorf("hand-over: a pair with %d pending bytes, paused for %v, silent for %v", d.Pending, d.PausedFor, w.Silent)
		}
		if pending += d.Pending; pending > len(f.body) {
			break
		}
	}
	switch {
	case w.State != stateNames[stateWaiting] && w.State != stateNames[stateConnecting] && w.State != stateNames[stateOpen]:
		return w, fmt.Errorf("hand-over: a pair in state %q", w.State)
	case len(f.fds) != want:
		return w, fmt.Errorf("hand-over: a pair in state %s with %d descriptors", w.State, len(f.fds))
	case pending != len(f.body):
		return w, fmt.Errorf("hand-over: a pair with %d pending bytes, not %d", len(f.body), pending)
	case !w.Client.IsValid():
		return w, fmt.Errorf("hand-over: a pair without a client")
	}
	return w, nil
}

// takeIn goes on with a pair where another engine stopped.
func (l *loop) takeIn(w pairState, fds []int, body []byte) {
	l.count.takenOver++
	p := l.begin(fds[incoming], w.Client)
	p.id = w.ID
	p.began -= int64(w.Duration)
	p.last -= ticks(w.Silent)
	if w.Destination.IsValid() {
		p.setDestination(w.Destination)
	}
	if w.Connected.IsValid() {
		l.attach(p, intercept.Decision{Destination: w.Connected})
	}
	p.listener = l.engine.listenerIndex(w.Listener)
	p.level, p.opened, p.cause = w.Step, w.Opened, w.Cause
	p.shared = true // until the old engine has closed its descriptors
	l.countSource(p)
	for s, d := range w.Directions {
		to := &p.dir[s]
		to.Resume(d.Bytes, d.Messages, d.Pauses, ticks(d.PausedFor))
		for f, on := range map[pump.Flags]bool{
			pump.EOF: d.EOF, pump.FINCame: d.FINCame, pump.FINSent: d.FinSent, pump.Ending: d.Ending, pump.Urgent: d.Urgent, pump.Refused: d.Buffered,
			pump.Detached: d.Detached, pump.Closing: d.Closing, pump.Throttled: d.Throttled, pump.ACKHeld: d.ACKHeld, pump.Broken: d.Broken,
		} {
			if on {
				to.Set(f)
			}
		}
		to.PendingLimit = d.Most
		to.Keep(&l.env, body[:d.Pending])
		body = body[d.Pending:]
	}
	switch w.State {
	case stateNames[stateWaiting]:
		p.state = stateWaiting
	case stateNames[stateOpen]:
		p.fd[outgoing], p.state = int32(fds[outgoing]), stateOpen
	default:
		p.fd[outgoing] = int32(fds[outgoing])
	}
	l.restart(p)
}

// listenerIndex is the index of the listener that w names, or -1.
func (e *Engine) listenerIndex(w listenerState) int16 {
	for i := range e.addrs {
		if e.listenerState(i) == w {
			return int16(i)
		}
	}
	return -1
}
