package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSoak is described in the package comment.
func TestSoak(t *testing.T) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	c := configuration(t)
	fmt.Fprintf(os.Stderr, "soak: %v, seed %d\n", c.duration, c.seed)
	w := build(t, ctx, c)
	began := time.Now()
	w.run(ctx, began)
	if ctx.Err() != nil {
		t.Error("interrupted")
	}
	if err := w.publish(w.report(time.Since(began))); err != nil {
		t.Error(err)
	}
	for _, failure := range w.failures[:min(len(w.failures), mostFailures)] {
		t.Error(failure)
	}
	if n := w.failed(); n > mostFailures {
		t.Errorf("and %d failures more", n-mostFailures)
	}
}

// random gives independent sources of the run's seed.
func (w *world) random(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(w.config.seed, stream))
}

// run runs the soak. When it returns, nothing runs any more.
func (w *world) run(ctx context.Context, began time.Time) {
	if err := w.server.open(); err != nil {
		w.fail("%v", err)
		return
	}
	defer w.server.wg.Wait()
	defer func() { w.server.close() }() // the one that is open then
	r := w.random(0)
	l, err := w.start(r, nil)
	if err != nil {
		w.fail("%v", err)
		return
	}
	// Everybody works until the time is over; streams that are under way then end by
	// themselves, or, when ctx ends, at once.
	working, enough := context.WithCancel(ctx)
	defer enough()
	defer context.AfterFunc(ctx, w.streams.abort)()
	var wg sync.WaitGroup
	for i := range workers {
		worker := worker{w, uint16(20000 + i), w.random(uint64(100 + i))}
		wg.Go(func() { worker.work(working) })
	}
	wg.Go(func() { w.disturb(working, w.random(1)) })
	telling, told := context.WithCancel(ctx)
	wg.Go(func() { w.tell(telling, began) })
	defer wg.Wait()
	defer enough()
	defer told()

	for l != nil && ctx.Err() == nil && time.Since(began) < w.config.duration && w.failed() < mostFailures {
		w.live(ctx, l, r)
		l = w.die(ctx, l, r)
	}
	enough()
	if l == nil || ctx.Err() != nil {
		w.streams.abort()
		return
	}
	w.quiet(func() {
		w.inspect(l)
		w.stop(l)
	})
}

// tell says how it goes.
func (w *world) tell(ctx context.Context, began time.Time) {
	for pause(ctx, 15*time.Second) == nil {
		fmt.Fprintln(os.Stderr, w.progress(began))
		if old := w.streams.older(time.Now().Add(-stall / 2)); old != "" {
			fmt.Fprintln(os.Stderr, "soak: under way for long:", old)
		}
		w.streams.forget(time.Now().Add(-10 * time.Minute))
	}
}

// live lets a relay live for a while, through faults that it must survive.
func (w *world) live(ctx context.Context, l *life, r *rand.Rand) {
	all := w.chosen(faultsOfProcess())
	span := upTo(min(max(w.config.duration/5, 3*time.Second), 25*time.Second), r)
	for end := time.Now().Add(span); time.Now().Before(end) && w.failed() < mostFailures; {
		if pause(ctx, upTo(1500*time.Millisecond, r)) != nil || !l.alive() {
			return
		}
		if _, err := l.look(); err != nil {
			w.fail("relay %v: %v", l, err)
		}
		if f, ok := drawFault(all, r); ok {
			w.suffer(ctx, f, l, r)
		}
		if l.killed { // nobody listens until die has started the next one
			return
		}
	}
}

// alive: the relay has not ended.
func (l *life) alive() bool {
	select {
	case <-l.process.Done():
		return false
	default:
		return true
	}
}

// die ends a relay in one way or another, and starts the next.
func (w *world) die(ctx context.Context, l *life, r *rand.Rand) (next *life) {
	if ctx.Err() != nil {
		return l
	}
	// While there are streams, the next one's mode is that of the last, and so are its rules: the
	// kernel still delivers what the last left in its sockets. Without a way back for
	// acknowledgements, a receiver would wait for the rest of its stream for minutes.
	start := func(last *life) {
		var err error
		if next, err = w.start(r, last); err != nil {
			w.fail("start: %v", err)
		}
	}
	n := r.IntN(10)
	switch {
	case l.killed:
		i := w.ledger.begin("kill", cutsAll)
		if err := l.ended(true); err != nil {
			w.fail("%v", err)
		}
		start(l)
		w.ledger.end(i)
	case !l.alive():
		i := w.ledger.begin("unexpected end", cutsAll)
		w.fail("the relay has ended by itself: %v\n%s", l.process.Wait(), l.said())
		start(l)
		w.ledger.end(i)
	case n < 4 && w.allowed("kill"):
		i := w.ledger.begin("kill", cutsAll)
		w.kill(l)
		start(l)
		w.ledger.end(i)
	case n < 7 && w.allowed("drain"):
		i := w.ledger.begin("drain", cutsUnopened)
		w.drain(l)
		start(l)
		w.ledger.end(i)
	default:
		w.quiet(func() {
			w.inspect(l)
			w.stop(l)
			start(nil)
		})
	}
	return next
}

// kill ends a relay without a warning.
func (w *world) kill(l *life) {
	l.prepareEnd()
	if err := l.process.Signal(unix.SIGKILL); err != nil {
		w.fail("kill: %v", err)
	}
	if err := l.ended(true); err != nil {
		w.fail("%v", err)
	}
}

// drain ends a relay while streams are under way. Those that last too long are cut,
// when the time is over and not before.
func (w *world) drain(l *life) {
	l.prepareEnd()
	deadline := time.AfterFunc(drainTimeout-500*time.Millisecond, func() {
		// It lasts a moment: until all have noticed.
		i := w.ledger.begin("drain deadline", cutsAll)
		time.AfterFunc(2*time.Second, func() { w.ledger.end(i) })
	})
	w.stop(l)
	deadline.Stop()
}

// stop sends SIGTERM and waits for a clean end.
func (w *world) stop(l *life) {
	l.prepareEnd()
	if err := l.process.Signal(unix.SIGTERM); err != nil {
		w.fail("stop: %v", err)
	}
	if err := l.ended(false); err != nil {
		w.fail("%v", err)
	}
}

// prepareEnd looks at a relay for the last time.
func (l *life) prepareEnd() {
	if _, err := l.look(); err != nil {
		l.fail("relay %v: %v", l, err)
	}
	l.totals.peak = max(l.totals.peak, l.peak())
}

// inspect looks whether a relay that nobody uses holds anything.
func (w *world) inspect(l *life) {
	if err := l.empty(); err != nil {
		w.fail("relay %v: %v", l, err)
		return
	}
	w.totals.checks++
}
