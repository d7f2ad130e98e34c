package ends

import (
	"sync/atomic"
)

// faults counts errors and keeps the first. The zero value has none. It may be used
// from any goroutine.
type faults struct {
	count atomic.Uint64
	first atomic.Pointer[string]
}

// note counts an error.
func (f *faults) note(err error) {
	text := err.Error()
	f.first.CompareAndSwap(nil, &text)
	f.count.Add(1)
}

// tell puts them into a result.
func (f *faults) tell(r *Result) {
	r.Errors = f.count.Load()
	if first := f.first.Load(); first != nil {
		r.Error = *first
	}
}
