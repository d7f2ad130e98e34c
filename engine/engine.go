package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

// ErrClosed is returned by calls on an engine that has ended.
var ErrClosed = errors.New("engine is closed")

// Engine relays connections. Make one with New, and let it work with Run.
type Engine struct {
	options Options
	dialer  tproxy.Dialer
	addrs   []netip.AddrPort // where the listeners really are
	loops   []*loop
	start   time.Time

	memory atomic.Int64 // charged by all loops
	active atomic.Int64 // pairs, and connections being accepted
	next   atomic.Uint64

	mu      sync.Mutex
	running bool
	closed  bool
}

// New checks the options and opens the listeners: from here on, clients queue
// up. Run serves them. An error says which address, and what to do.
func New(options Options) (*Engine, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		options: o,
		dialer:  tproxy.Dialer{Spoof: o.Spoof, Mark: o.Mark, UserTimeout: int(o.UserTimeout.Milliseconds())},
		start:   time.Now(),
	}
	for i := range o.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			e.discard()
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	if err := e.listen(); err != nil {
		e.discard()
		return nil, err
	}
	return e, nil
}

// listen opens one socket per address and loop, on a thread that ThreadInit has
// prepared.
func (e *Engine) listen() error {
	if e.options.ThreadInit == nil {
		return e.openListeners()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := e.options.ThreadInit()
		if err == nil {
			err = e.openListeners()
		}
		done <- err
	}()
	return <-done
}

func (e *Engine) openListeners() error {
	for i, ln := range e.options.Listeners {
		o := tproxy.ListenOptions{
			Transparent: ln.Mode == tproxy.TPROXY,
			Backlog:     e.options.Backlog,
			UserTimeout: e.dialer.UserTimeout,
		}
		addr := ln.Address
		// With SO_REUSEPORT a second relay of the same user would silently
		// take half of the connections. A socket without it tells.
		fd, err := tproxy.Listen(addr, o)
		if err != nil {
			return err
		}
		if addr, err = tproxy.LocalAddr(fd); err != nil {
			unix.Close(fd)
			return fmt.Errorf("listen %v: getsockname: %w", ln.Address, err)
		}
		unix.Close(fd)
		o.ReusePort = true
		for _, l := range e.loops {
			if fd, err = tproxy.Listen(addr, o); err != nil {
				return err
			}
			l.listeners = append(l.listeners, listener{fd: fd, index: i})
		}
		e.addrs = append(e.addrs, addr)
	}
	return nil
}

// discard gives back what New has opened.
func (e *Engine) discard() {
	for _, l := range e.loops {
		l.cleanUp()
	}
}

// Addrs are the listeners' addresses, in the order of Options.Listeners, with the
// real ports.
func (e *Engine) Addrs() []netip.AddrPort { return append([]netip.AddrPort(nil), e.addrs...) }

// Run serves until ctx is cancelled; then it closes the listeners, waits up to
// Options.DrainTimeout for the pairs to end by themselves, and resets the rest.
// It returns nil after that, and the error that stopped a loop otherwise. It
// can be called once.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.closed || e.running {
		e.mu.Unlock()
		return ErrClosed
	}
	e.running = true
	e.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { e.each((*loop).drain) })
	defer stop()
	errs := make(chan error, len(e.loops))
	for _, l := range e.loops {
		go func() { errs <- l.run() }()
	}
	var failed error
	for range e.loops {
		if err := <-errs; err != nil && failed == nil {
			failed = err
			e.each((*loop).abort) // the others cannot serve what the failed one held
		}
	}
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	return failed
}

// Close ends the engine at once: listeners are closed, pairs reset, and Run
// returns. It may be called any time, also instead of Run, and more than once.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	if e.running {
		e.each((*loop).abort)
	} else {
		e.discard()
	}
	return nil
}

func (e *Engine) each(f func(*loop)) {
	for _, l := range e.loops {
		l.mailbox.post(f)
	}
}

// drain begins an orderly end.
func (l *loop) drain() {
	if l.draining {
		return
	}
	l.closeListeners()
	l.draining = true
	l.deadline = l.now.Add(max(l.engine.options.DrainTimeout, 0))
	if !l.now.Before(l.deadline) {
		l.endAll(ReasonDrained)
	}
}

func (l *loop) abort() { l.aborted = true }

// admit counts a connection in, if there is room for one more pair.
func (e *Engine) admit() bool {
	if n := e.active.Add(1); e.options.MaxPairs > 0 && n > int64(e.options.MaxPairs) {
		e.active.Add(-1)
		return false
	}
	return true
}

func (e *Engine) leave() { e.active.Add(-1) }

// Adopt hands over a connection that the caller accepted: bytes that were already
// read from it are sent to destination before everything else. prefix is copied.
// On success the engine owns fd, and the caller must close every duplicate of it (for a
// net.Conn: File, Close the conn, Adopt the file's descriptor); on error it is
// still the caller's. MaxPairs does not apply: whoever accepts, admits.
func (e *Engine) Adopt(fd int, prefix []byte, destination netip.AddrPort) error {
	if !destination.IsValid() || destination.Port() == 0 {
		return fmt.Errorf("adopt: destination %v is not an address and port", destination)
	}
	client, err := tproxy.PeerAddr(fd)
	if err != nil {
		return fmt.Errorf("adopt: getpeername: %w", err)
	}
	if !client.IsValid() {
		return errors.New("adopt: not a TCP connection")
	}
	if err := prepareAdopted(fd); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	prefix = append([]byte(nil), prefix...)
	l := e.loops[e.next.Add(1)%uint64(len(e.loops))]
	e.active.Add(1)
	if !l.mailbox.post(func(l *loop) { l.adopt(fd, client, prefix, destination) }) {
		e.leave()
		return ErrClosed
	}
	return nil
}

// prepareAdopted gives an adopted connection what accepted ones inherit.
func prepareAdopted(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("non-blocking: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("TCP_NODELAY: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		return fmt.Errorf("SO_OOBINLINE: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
		return fmt.Errorf("SO_KEEPALIVE: %w", err)
	}
	return nil
}

// Stats sums the loops' numbers, without stopping them: each loop's are as of its last
// wait.
func (e *Engine) Stats() Stats {
	s := Stats{Ended: map[Reason]uint64{}, DialErrors: map[string]uint64{}, Steps: map[tproxy.Step]uint64{}}
	for _, l := range e.loops {
		l.mu.Lock()
		c := l.published
		for e, n := range l.dialErrors {
			if n > 0 {
				s.DialErrors[errnoName(unix.Errno(e))] += n
			}
		}
		l.mu.Unlock()
		c.add(&s)
	}
	return s
}
