package intercept

import (
	"errors"

	"github.com/valyala/bytebufferpool"
)

// Chain makes one interceptor of several. What the first one's handler sends on is what the second
// one's handler sees, and so on, in the same order for both directions.
//
//   - When an interceptor refuses a pair, the pair is refused, and the interceptors behind it are
//     not asked. When several give a destination, the last one counts. All of them see the same
//     Pair.
//   - Each handler holds back its own bytes, up to MaxHold. A handler that has detached is skipped
//     from then on. When all have detached, the chain detaches.
//   - The end of the stream reaches every handler once, in order, with what the handlers before it
//     still had. When a handler returns Close, those behind it see the end of the stream. When one
//     returns Reset, the pair ends at once.
//
// Nil interceptors are left out. A single one is returned as it is. Without any, Chain returns a
// nil Interceptor.
func Chain(interceptors ...Interceptor) Interceptor {
	var list []Interceptor
	for _, i := range interceptors {
		if i != nil {
			list = append(list, i)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return &chain{list: list}
}

type chain struct {
	list []Interceptor
	pool bytebufferpool.Pool // what stages write and hold back
}

// Open asks the interceptors in order.
func (ch *chain) Open(p Pair) Decision {
	var result Decision
	var opened []Decision // those with handlers
	asked := false
	defer func() {
		if !asked { // one refused or panicked, so the engine will not close the handlers
			_ = closeAll(opened)
		}
	}()
	for _, i := range ch.list {
		d := i.Open(p)
		if d.Upstream != nil || d.Downstream != nil {
			opened = append(opened, d)
		}
		if d.Refuse {
			return Decision{Refuse: true}
		}
		if d.Destination.IsValid() {
			result.Destination = d.Destination
		}
	}
	asked = true
	switch len(opened) {
	case 0:
		return result
	case 1:
		result.Upstream, result.Downstream = opened[0].Upstream, opened[0].Downstream
		return result
	}
	// A handler may serve both directions, so the first line that is closed closes all handlers.
	end := &closing{opened: opened}
	up := &line{pool: &ch.pool, end: end}
	down := &line{pool: &ch.pool, end: end}
	for _, d := range opened {
		up.add(d.Upstream)
		down.add(d.Downstream)
	}
	// Without the test an empty line would become a Handler that is not nil.
	if len(up.stages) > 0 {
		result.Upstream = up
	}
	if len(down.stages) > 0 {
		result.Downstream = down
	}
	return result
}

// closing closes the handlers of a pair's whole chain, once.
type closing struct {
	opened []Decision
}

func (cl *closing) close() error {
	opened := cl.opened
	cl.opened = nil
	return closeAll(opened)
}

func closeAll(opened []Decision) (err error) {
	if len(opened) == 0 {
		return nil
	}
	defer func() { err = errors.Join(err, closeAll(opened[1:])) }() // also when a handler panics
	return opened[0].CloseHandlers()
}
