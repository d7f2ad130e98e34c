package engine

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tprelay/tprelay/intercept"
)

// Callbacks are the embedder's code that runs on a loop: interceptors, handlers and observers.
// A callback that panics ends its own pair and nothing else.

type callback uint8

const (
	callNone callback = iota
	callOpen
	callHandle
	callClose
	callPairOpened
	callPairEnded
)

var callbackNames = [...]string{"", "Interceptor.Open", "Handler.Handle", "Handler.Close", "Observer.PairOpened", "Observer.PairEnded"}

func (c callback) String() string { return callbackNames[c] }

// errGoexit ends a loop in which a callback called runtime.Goexit: its goroutine is gone.
var errGoexit = errors.New("an interceptor, handler or observer ended a loop with runtime.Goexit")

// panics are the places that panicked. Each is logged once, because every connection may reach it.
type panics struct {
	mu    sync.Mutex
	sites map[uintptr]bool
}

// first reports whether pc is new.
func (p *panics) first(pc uintptr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sites[pc] {
		return false
	}
	if p.sites == nil {
		p.sites = map[uintptr]bool{}
	}
	p.sites[pc] = true
	return true
}

// callMark says which callback a loop is in, and how many callbacks it made before. 0 means none.
type callMark uint64

const callShift = 3

func (m callMark) callback() callback { return callback(m & (1<<callShift - 1)) }

// entered marks that the loop is in a callback.
func (l *loop) entered(c callback, id uint64) {
	l.calls++
	l.callFor.Store(id)
	l.calling.Store(l.calls<<callShift | uint64(c))
}

// left marks that the callback is over. It must be deferred: it makes a panic an error.
func (l *loop) left(c callback, id uint64, err *error) {
	l.calling.Store(0)
	if v := recover(); v != nil {
		*err = fmt.Errorf("%v panicked: %v", c, v)
		if l.engine.panics.first(panicSite()) {
			l.engine.options.Logger.Error("a callback panicked; its pair is reset. The same place is not logged again",
				"callback", c.String(), "pair", id, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}
}

// panicSite is the place of the panic that is being recovered.
func panicSite() uintptr {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for panicking := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicking = true
		case panicking && !strings.HasPrefix(f.Function, "runtime."):
			return f.PC
		}
		if !more {
			return 0
		}
	}
}

func (l *loop) callOpen(p intercept.Pair) (d intercept.Decision, err error) {
	l.entered(callOpen, p.ID)
	defer l.left(callOpen, p.ID, &err)
	return l.engine.options.Interceptor.Open(p), nil
}

func (l *loop) callHandle(id uint64, h intercept.Handler, c *intercept.Chunk) (v intercept.Verdict, err error) {
	if l.gone {
		return intercept.Reset, errGoexit
	}
	l.entered(callHandle, id)
	defer l.left(callHandle, id, &err)
	return h.Handle(c), nil
}

// callClose closes a pair's handlers. The pair ends in any case, so errors are only logged.
func (l *loop) callClose(id uint64, d intercept.Decision) {
	if l.gone || d.Upstream == nil && d.Downstream == nil {
		return
	}
	var err error
	l.entered(callClose, id)
	defer l.left(callClose, id, &err)
	if err := d.CloseHandlers(); err != nil {
		l.engine.options.Logger.Warn("closing a handler", "pair", id, "err", err)
	}
}

func (l *loop) callPairOpened(f func(PairInfo), info PairInfo) (err error) {
	l.entered(callPairOpened, info.ID)
	defer l.left(callPairOpened, info.ID, &err)
	f(info)
	return nil
}

// callPairEnded ignores a panic but for logging it, because the pair has ended already.
func (l *loop) callPairEnded(f func(PairInfo), info PairInfo) {
	if l.gone {
		return
	}
	var err error
	l.entered(callPairEnded, info.ID)
	defer l.left(callPairEnded, info.ID, &err)
	f(info)
}

// slowCallback is how long a callback may take before it is logged.
const slowCallback = time.Second

// watchCallbacks logs every callback that blocks its loop, until done is closed.
func (e *Engine) watchCallbacks(done <-chan struct{}) {
	type seen struct {
		mark  callMark
		since time.Time
		told  bool
	}
	loops := make([]seen, len(e.loops))
	ticker := time.NewTicker(slowCallback)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		for i, l := range e.loops {
			mark, now := callMark(l.calling.Load()), time.Now()
			if mark != loops[i].mark {
				loops[i] = seen{mark: mark, since: now}
				continue
			}
			took := now.Sub(loops[i].since)
			if mark == 0 || loops[i].told || took < slowCallback {
				continue
			}
			id := l.callFor.Load()
			if callMark(l.calling.Load()) != mark {
				continue // the callback has just returned, and id may be that of the next one
			}
			loops[i].told = true
			e.options.Logger.Warn("a callback blocks an event loop and all its connections; callbacks must not wait",
				"callback", mark.callback().String(), "pair", id, "loop", i, "for_at_least", took.Round(time.Millisecond))
		}
	}
}

// ErrOnLoop is returned by calls that wait for the engine's loops (Pairs, Ping, HandOver) when an
// interceptor, handler or observer makes them, because its own loop waits for it. Make such calls
// from another goroutine, and do not wait for that one.
var ErrOnLoop = errors.New("called from an interceptor, handler or observer, for which the loop waits")

// onLoop reports whether the calling goroutine is one of the engine's loops.
func (e *Engine) onLoop() bool {
	id := goroutine()
	for _, l := range e.loops {
		if id != 0 && l.goroutine.Load() == id {
			return true
		}
	}
	return false
}

// goroutine is the number of the calling goroutine, which is never used again, or 0 if it cannot be
// read. Only the head of a stack trace has it (golang.org/x/net/http2 reads it there, too).
func goroutine() uint64 {
	var trace [64]byte
	fields := bytes.Fields(trace[:runtime.Stack(trace[:], false)]) // goroutine 18 [running]:
	if len(fields) < 2 {
		return 0
	}
	id, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return id
}
