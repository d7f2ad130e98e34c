package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// Errors of calls that the engine cannot serve now. They may come wrapped: use errors.Is.
var (
	// ErrNotRunning is returned by Ping and HandOver before Run.
	ErrNotRunning = errors.New("engine does not run yet")
	// ErrRunning is returned by a second Run.
	ErrRunning = errors.New("engine runs already; call Run once, and New for another engine")
	// ErrDraining is returned by Adopt after Run's context was cancelled, and after HandOver.
	ErrDraining = errors.New("engine drains: it takes no more connections")
	// ErrMemory is returned by Adopt when MemoryLimit leaves no room for the prefix.
	ErrMemory = errors.New("memory limit is reached")
	// ErrClosed is returned after Close, and after Run has returned.
	ErrClosed = errors.New("engine is closed")
)

// Engine relays connections. New makes one, and Run serves with it. All methods may be called from
// any goroutine.
type Engine struct {
	options Options
	dialer  tproxy.Dialer
	// dialerToSend is dialer for a connection on which bytes will be sent at once. They carry the
	// last acknowledgement of the handshake, which saves a packet and a wake-up of the server.
	// Without bytes the kernel sends it after 200 ms. Until releaseACK, what the server sends may
	// be acknowledged 40 ms late.
	dialerToSend tproxy.Dialer
	addrs        []netip.AddrPort // where the listeners really are
	sources      sources
	panics       panics

	generation uint64             // how many engines gave their pairs to the next before
	inherits   *handover.Receiver // from where pairs come over; nil when they have

	descriptors int // those with this number or above are left to others; 0: none
	loops       []*loop
	start       time.Time

	memory atomic.Int64 // charged by all loops
	active atomic.Int64 // pairs, and connections being accepted
	room   atomic.Int64 // for as many of them listeners accept: MaxPairs, less during a hand-over
	next   atomic.Uint64

	draining atomic.Bool // takes no more connections

	mu      sync.Mutex
	running bool
	closed  bool
}

// New checks the options and opens the listeners. From then on clients wait in the backlog; Run
// serves them. The error names the option or the address, and says what to do where that is known.
// Close releases an engine that is not run.
func New(options Options) (*Engine, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		options: o,
		start:   time.Now(),
	}
	e.room.Store(e.mostPairs())
	if e.descriptors, err = descriptors(o.DescriptorReserve); err != nil {
		return nil, err
	}
	e.dialer = tproxy.Dialer{Spoof: o.Spoof, Mark: o.Mark, Control: e.checkReserve, ConnOptions: tproxy.ConnOptions(o.conn())}
	e.dialerToSend = e.dialer
	e.dialerToSend.Control = func(fd int) error {
		sock.DelayACK(fd)
		return e.checkReserve(fd)
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

// discard gives back what New has opened.
func (e *Engine) discard() {
	for _, l := range e.loops {
		l.endEverything()
		l.cleanUp()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.inherits != nil {
		e.inherits.Close()
		e.inherits = nil
	}
}

// Addrs are the addresses of the listeners with their real ports, in the order of
// Options.Listeners.
func (e *Engine) Addrs() []netip.AddrPort { return append([]netip.AddrPort(nil), e.addrs...) }

// Run serves until ctx is cancelled. Then it closes the listeners, waits up to Options.DrainTimeout
// for the pairs to end by themselves, resets the others, and returns nil. When a loop fails, Run
// resets all pairs and returns the error. Run can be called once: a second call returns ErrRunning,
// or ErrClosed when the engine has ended.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.begin(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		e.draining.Store(true)
		e.each((*loop).drain)
	})
	defer stop()
	over, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		if o := &e.options; o.Interceptor != nil || o.Observer.PairOpened != nil || o.Observer.PairEnded != nil {
			e.watchCallbacks(over)
		}
	}()
	errs := make(chan error, len(e.loops))
	for _, l := range e.loops {
		go func() {
			err := errGoexit
			defer func() { errs <- err }()
			err = l.run()
		}()
	}
	inherited := make(chan error, 1)
	if r := e.inherits; r != nil {
		go func() { inherited <- e.takeOver(r) }()
	} else {
		inherited <- nil
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
	if e.inherits != nil {
		e.inherits.Close() // takeOver waits no longer
	}
	e.mu.Unlock()
	if err := <-inherited; failed == nil && !errors.Is(err, ErrClosed) {
		failed = err
	}
	close(over)
	<-watched
	return failed
}

// begin notes that the engine runs. An engine runs once.
func (e *Engine) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case e.running:
		return ErrRunning
	}
	e.running = true
	return nil
}

// runs returns nil if the loops work and the caller may wait for them.
func (e *Engine) runs() error {
	if e.onLoop() {
		return ErrOnLoop
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case !e.running:
		return ErrNotRunning
	}
	return nil
}

// Close ends the engine at once: it closes the listeners and resets the pairs, and Run returns.
// Close does not wait for that. It may be called at any time, also in a callback, before Run, and
// more than once. Without Run, it resets what was adopted and calls Observer.PairEnded before it
// returns. The error is always nil.
func (e *Engine) Close() error {
	e.mu.Lock()
	closed, running := e.closed, e.running
	e.closed = true
	e.mu.Unlock()
	switch {
	case closed:
	case running:
		e.each((*loop).abort)
	default:
		e.discard() // without the lock: it calls observers
	}
	return nil
}

func (e *Engine) each(f func(*loop)) {
	for _, l := range e.loops {
		l.mailbox.post(f)
	}
}

// descriptors is the number from which on descriptors are left to others, or 0. The kernel gives
// the lowest number that is free, so a number that high means that all below are in use.
func descriptors(reserve int) (int, error) {
	if reserve < 0 {
		return 0, nil
	}
	most, err := mostDescriptors()
	return most - min(reserve, most/4), err
}

// mostDescriptors is how many descriptors the process may open.
func mostDescriptors() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	return int(min(limit.Cur, math.MaxInt32)), nil
}

// checkReserve refuses a new socket whose number is one of those that are left to others.
func (e *Engine) checkReserve(fd int) error {
	if e.descriptors > 0 && fd >= e.descriptors {
		return unix.EMFILE
	}
	return nil
}

// mostPairs is MaxPairs, or so many that there is no limit.
func (e *Engine) mostPairs() int64 {
	if e.options.MaxPairs > 0 {
		return int64(e.options.MaxPairs)
	}
	return math.MaxInt64
}

// admit counts a connection in, if there is room for one more pair.
func (e *Engine) admit() bool {
	if e.active.Add(1) > e.room.Load() {
		e.active.Add(-1)
		return false
	}
	return true
}

func (e *Engine) leave() { e.active.Add(-1) }

// Stats sums the numbers of all loops. It does not stop the loops: each one's numbers are those of
// its last wait. It may be called in a callback, and before and after Run.
func (e *Engine) Stats() Stats {
	s := Stats{Ended: map[Reason]uint64{}, DialErrors: map[string]uint64{}, SpoofLevels: map[tproxy.SpoofLevel]uint64{}}
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
