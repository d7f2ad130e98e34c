package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
)

// logged collects what an engine logs.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// lines are those that contain text.
func (l *logged) lines(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// embedder is an interceptor, a handler of both directions and an observer, of functions that may
// be nil.
type embedder struct {
	open          func(intercept.Pair) intercept.Decision
	handle        func(*intercept.Chunk) intercept.Verdict
	close         func() error
	opened, ended func(engine.PairInfo)
}

func (e *embedder) Open(p intercept.Pair) intercept.Decision {
	if e.open != nil {
		return e.open(p)
	}
	return intercept.Decision{Upstream: e, Downstream: e}
}

func (e *embedder) Handle(c *intercept.Chunk) intercept.Verdict {
	if e.handle != nil {
		return e.handle(c)
	}
	return intercept.Forward
}

func (e *embedder) Close() error {
	if e.close != nil {
		return e.close()
	}
	return nil
}

// observer has what e does when pairs open and end.
func (e *embedder) observer() engine.Observer {
	return engine.Observer{PairOpened: e.opened, PairEnded: e.ended}
}

// panicky makes e panic whenever armed says so, in the callback of that name.
func panicky(callback string, armed func() bool) *embedder {
	blow := func() {
		if armed() {
			var none map[string]int
			//lint:ignore SA5000 this is the panic
			none[callback] = 1
		}
	}
	e := new(embedder)
	switch callback {
	case "Interceptor.Open":
		e.open = func(intercept.Pair) intercept.Decision {
			blow()
			return intercept.Decision{Upstream: e, Downstream: e}
		}
	case "Handler.Handle":
		e.handle = func(*intercept.Chunk) intercept.Verdict { blow(); return intercept.Forward }
	case "Handler.Close":
		e.close = func() error { blow(); return nil }
	case "Observer.PairOpened":
		e.opened = func(engine.PairInfo) { blow() }
	case "Observer.PairEnded":
		e.ended = func(engine.PairInfo) { blow() }
	}
	return e
}

// TestPanicInACallbackEndsItsPairAlone: whichever callback panics, the process and every other pair
// of the same loop go on. The panic is logged once, with the stack.
func TestPanicInACallbackEndsItsPairAlone(t *testing.T) {
	for _, c := range []struct {
		callback string
		reason   engine.Reason
	}{
		{"Interceptor.Open", engine.ReasonPanicked},
		{"Handler.Handle", engine.ReasonPanicked},
		{"Observer.PairOpened", engine.ReasonPanicked},
		{"Handler.Close", engine.ReasonEOF}, // the pair had ended
		{"Observer.PairEnded", engine.ReasonEOF},
	} {
		t.Run(c.callback, func(t *testing.T) {
			var mu sync.Mutex
			armed := false
			arm := func(on bool) { mu.Lock(); armed = on; mu.Unlock() }
			e := panicky(c.callback, func() bool { mu.Lock(); defer mu.Unlock(); return armed })
			log := new(logged)
			r := newRig(t, engine.Options{Loops: 1, Interceptor: e, Observer: e.observer(), Logger: log.logger()})
			bystander, itsServer := r.pair()
			exchange(t, bystander, itsServer, noise(1000))
			arm(true)
			for n := range uint64(2) {
				switch c.callback {
				case "Interceptor.Open", "Observer.PairOpened":
					r.dialReset()
				case "Handler.Handle":
					client := r.dial()
					client.Write(noise(10))
					expectReset(t, "client", client)
				default:
					client, server := r.pair()
					client.CloseWrite()
					server.Close()
					expect(t, "client", client, nil)
				}
				r.until("the end", func(s engine.Stats) bool { return s.Ended[c.reason] == n+1 && s.Active == 1 })
			}
			arm(false)
			exchange(t, bystander, itsServer, noise(100_000))
			lines := log.lines("panicked")
			if len(lines) != 1 || !strings.Contains(lines[0], c.callback) || !strings.Contains(lines[0], "callback_test.go") ||
				!strings.Contains(lines[0], "assignment to entry in nil map") {
				t.Errorf("logged %d lines: %q", len(lines), lines)
			}
		})
	}
}

// TestPanicInAHandlerOfAnAdoptedPrefix: the handler sees the prefix before the outgoing flow is
// established.
func TestPanicInAHandlerOfAnAdoptedPrefix(t *testing.T) {
	var told engine.PairInfo
	done := make(chan struct{})
	e := &embedder{
		handle: func(*intercept.Chunk) intercept.Verdict { panic("no such prefix") },
		ended:  func(i engine.PairInfo) { told = i; close(done) },
	}
	r := newRig(t, engine.Options{Interceptor: e, Observer: e.observer()})
	client, conn := accepted(t)
	r.keep(client)
	r.adopt(conn, []byte("hello"))
	expectReset(t, "client", client)
	<-done
	if told.Reason != engine.ReasonPanicked || told.Reason.String() != "panicked" || told.Err.Error() != "Handler.Handle panicked: no such prefix" {
		t.Errorf("told %v, %v", told.Reason, told.Err)
	}
}

// TestGoexitInACallbackEndsRun: the loop's goroutine is gone, and Run does not wait for it. All
// that the loop held is given back, also when the loop was about to end.
func TestGoexitInACallbackEndsRun(t *testing.T) {
	var armed atomic.Bool
	exit := func() {
		if armed.Load() {
			runtime.Goexit()
		}
	}
	for name, e := range map[string]*embedder{
		"Interceptor.Open": {open: func(intercept.Pair) intercept.Decision { exit(); return intercept.Decision{} }},
		"Handler.Handle":   {handle: func(*intercept.Chunk) intercept.Verdict { exit(); return intercept.Forward }},
		"Handler.Handle at the end": {handle: func(c *intercept.Chunk) intercept.Verdict {
			if c.End {
				exit()
			}
			return intercept.Forward
		}},
		"Handler.Close":       {close: func() error { exit(); return nil }},
		"Observer.PairOpened": {opened: func(engine.PairInfo) { exit() }},
		"Observer.PairEnded":  {ended: func(engine.PairInfo) { exit() }},
	} {
		for _, closing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, closed %v", name, closing), func(t *testing.T) {
				armed.Store(false)
				r := newRig(t, engine.Options{Loops: 2, Interceptor: e, Observer: e.observer()})
				var clients []*net.TCPConn
				for range 8 { // on both loops
					client, server := r.pair()
					exchange(t, client, server, noise(100))
					clients = append(clients, client)
				}
				armed.Store(true)
				if closing {
					r.Close()
				} else {
					if c, err := net.Dial("tcp", r.address()); err == nil { // the reset can be as fast
						r.keep(c)
					}
					rst(clients[0])
				}
				err := r.wait()
				if goes := err != nil && strings.Contains(err.Error(), "Goexit"); !goes && !closing {
					t.Errorf("Run: %v", err)
				}
				for _, client := range clients[1:] {
					expectReset(t, "client", client)
				}
				<-r.done
				r.done <- nil // rig.end expects no error
			})
		}
	}
}

// TestCallsOnALoopDoNotDeadlock: calls that wait for the loops return ErrOnLoop, and others work.
func TestCallsOnALoopDoNotDeadlock(t *testing.T) {
	var r *rig
	ready := make(chan struct{})
	found := make(chan error, 100)
	try := func(where string) {
		<-ready
		check := func(call string, err, want error) {
			if !errors.Is(err, want) {
				found <- fmt.Errorf("%s in %s: %v, want %v", call, where, err, want)
			}
		}
		check("Pairs", r.Pairs(func(engine.PairInfo) bool { return true }), engine.ErrOnLoop)
		check("Ping", r.Ping(context.Background()), engine.ErrOnLoop)
		_, err := r.HandOver(context.Background(), nil, nil)
		check("HandOver", err, engine.ErrOnLoop)
		check("Run", r.Run(context.Background()), engine.ErrRunning)
		if s := r.Stats(); s.Accepted == 0 && where != "Open" {
			found <- fmt.Errorf("Stats in %s: %+v", where, s)
		}
	}
	e := new(embedder)
	e.open = func(intercept.Pair) intercept.Decision {
		try("Open")
		return intercept.Decision{Upstream: e, Downstream: e}
	}
	e.handle = func(*intercept.Chunk) intercept.Verdict { try("Handle"); return intercept.Forward }
	e.close = func() error { try("Close of a handler"); return nil }
	e.opened = func(engine.PairInfo) { try("PairOpened") }
	e.ended = func(engine.PairInfo) {
		try("PairEnded")
		r.Close()
	}
	r = newRig(t, engine.Options{Loops: 2, Interceptor: e, Observer: e.observer()})
	close(ready)
	client, server := r.pair()
	exchange(t, client, server, noise(1000))
	client.CloseWrite()
	server.Close()
	if err := r.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
	close(found)
	for err := range found {
		t.Error(err)
	}
}

// TestCallsBesideALoopWork: another goroutine may ask while a callback waits for nothing of it.
func TestCallsBesideALoopWork(t *testing.T) {
	var r *rig
	ready, answers := make(chan struct{}), make(chan error, 1)
	e := &embedder{opened: func(engine.PairInfo) {
		<-ready
		// While this callback runs, the loop answers nobody: such a call waits as long as its
		// context lets it, and is not refused as one of the loop itself.
		gaveUp := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			gaveUp <- r.Ping(ctx)
		}()
		if err := <-gaveUp; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ping while the callback runs: %v", err)
		}
		go func() {
			answers <- errors.Join(r.Ping(context.Background()), r.Pairs(func(engine.PairInfo) bool { return true }))
		}()
	}}
	r = newRig(t, engine.Options{Loops: 1, Observer: e.observer()})
	close(ready)
	r.pair()
	if err := <-answers; err != nil {
		t.Error(err)
	}
}

// TestCallbackThatBlocksIsLogged names the callback and its pair, once, while it still blocks.
func TestCallbackThatBlocksIsLogged(t *testing.T) {
	log := new(logged)
	release := make(chan struct{})
	var once sync.Once
	var pair uint64
	e := new(embedder)
	e.open = func(p intercept.Pair) intercept.Decision { pair = p.ID; return intercept.Decision{Upstream: e} }
	e.handle = func(*intercept.Chunk) intercept.Verdict { once.Do(func() { <-release }); return intercept.Forward }
	r := newRig(t, engine.Options{Loops: 1, Interceptor: e, Logger: log.logger()})
	client, server := r.pair()
	sent := sendAll(client, noise(1000), true)
	for end := time.Now().Add(patience); len(log.lines("blocks")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not logged")
		}
	}
	close(release)
	expect(t, "server", server, noise(1000))
	<-sent
	lines := log.lines("blocks")
	if len(lines) != 1 || !strings.Contains(lines[0], fmt.Sprintf("callback=Handler.Handle pair=%d ", pair)) {
		t.Errorf("logged %q", lines)
	}
}
