package intercept

import (
	"errors"
	"io"
	"reflect"
)

// always is the interceptor that decides the same for every pair.
type always Decision

// Open gives the one decision there is.
func (a always) Open(Pair) Decision { return Decision(a) }

// both gives h, which must keep no state, to both directions of every pair.
func both(h Handler) Interceptor { return always{Upstream: h, Downstream: h} }

// CloseHandlers closes those handlers of d that are io.Closers, each once, also when both
// directions share one. It is for code that ends pairs: the engine, a chain, a test. The error
// joins theirs.
func (d Decision) CloseHandlers() (err error) {
	if down, ok := d.Downstream.(io.Closer); ok && !same(d.Upstream, d.Downstream) {
		defer func() { err = errors.Join(err, down.Close()) }() // also when the first one panics
	}
	if up, ok := d.Upstream.(io.Closer); ok {
		err = up.Close()
	}
	return err
}

// same reports whether a and b are one value. Handlers of a type that Go cannot
// compare count as two; comparing them would panic.
func same(a, b Handler) bool {
	if a == nil || b == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	return reflect.ValueOf(a).Comparable() && a == b
}
