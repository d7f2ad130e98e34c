package engine

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/intercept"
)

// TakeOver makes an engine that takes the listeners and the live pairs of another
// process's engine over, which calls HandOver with the other end of fd. It is New for
// the rest: a listener of the options uses the sockets that come over fd with its
// address and mode, and is opened where none do; what the options do not name is no
// longer listened on. Run says that it is ready, and takes the pairs in. fd is the
// engine's when TakeOver has succeeded, and it is closed when the hand-over is done.
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
	e.generation = hello.Generation + 1
	e.inherits = &k
	return e, nil
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

// takeIn takes the pairs in that come over, until there are no more. It runs beside the
// loops, and ends at the latest when Run does.
func (e *Engine) takeIn(k link) {
	n, err := e.takePairs(k)
	e.mu.Lock()
	unix.Close(k.fd)
	e.inherits = nil
	e.mu.Unlock()
	if err != nil {
		e.options.Logger.Warn("the hand-over broke off", "pairs", n, "err", err)
		return
	}
	e.options.Logger.Info("took over", "pairs", n)
}

// takesOver: pairs may still come over.
func (e *Engine) takesOver() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inherits != nil
}

func (e *Engine) takePairs(k link) (n int, err error) {
	e.ask(func(*loop) {}) // every loop runs
	if err := k.send(frameReady, nil, nil); err != nil {
		return 0, err
	}
	for {
		f, err := k.receive()
		if err != nil {
			return n, err
		}
		switch f.kind {
		case framePair:
			if err = e.takePair(&f); err == nil {
				n++
			}
		case frameSync:
			err = k.send(frameAck, nil, nil)
		case frameDone:
			return n, k.send(frameAck, nil, nil)
		default:
			err = fmt.Errorf("hand-over: frame %q is not known", byte(f.kind))
		}
		f.close()
		if err != nil {
			return n, err
		}
	}
}

// takePair gives the pair in f to a loop.
func (e *Engine) takePair(f *frame) error {
	w, err := f.pair()
	if err != nil {
		return err
	}
	fds := f.fds
	l := e.loops[e.next.Add(1)%uint64(len(e.loops))]
	e.active.Add(1)
	if !l.mailbox.post(func(l *loop) { l.takeIn(w, fds, f.body) }) {
		e.leave()
		return ErrClosed
	}
	f.fds = nil
	return nil
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
		if d.Pending < 0 || d.PausedFor < 0 {
			return w, fmt.Errorf("hand-over: a pair with %d pending bytes, paused for %v", d.Pending, d.PausedFor)
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
	p.id, p.since = w.ID, w.Since.UnixNano()
	if w.Destination.IsValid() {
		p.setDestination(w.Destination)
	}
	if w.Connected.IsValid() {
		l.attach(p, intercept.Decision{Destination: w.Connected})
	}
	p.listener = l.engine.listenerIndex(w.Listener)
	p.step, p.opened, p.shared, p.cause = w.Step, w.Opened, w.Shared, w.Cause
	l.countSource(p)
	for s, d := range w.Directions {
		to := &p.dir[s]
		to.bytes, to.messages, to.pauses, to.stalledFor = d.Bytes, d.Messages, d.Pauses, uint32(d.PausedFor/tickLength)
		for f, on := range map[flags]bool{
			eof: d.EOF, finSent: d.FinSent, ending: d.Ending, urgent: d.Urgent, buffered: d.Buffered,
			detached: d.Detached, closing: d.Closing, throttled: d.Throttled,
		} {
			if on {
				to.set(f)
			}
		}
		to.most = d.Most
		p.broken[s] = d.Broken
		l.keep(to, body[:d.Pending])
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
	r := reference{p.slot, p.generation}
	l.restart(p)
	for s := range side(2) {
		if p := l.find(r); p != nil && p.dir[s].is(throttled) {
			l.watchStall(p, s) // it may be free here
		}
	}
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
