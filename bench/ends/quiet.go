package ends

import (
	"fmt"
	"sync/atomic"
)

// quiet drops what gnet logs, as standard output is for results, but keeps the last
// error: gnet does not return all of them.
type quiet struct{ last atomic.Pointer[string] }

func (*quiet) Debugf(string, ...any) {}
func (*quiet) Infof(string, ...any)  {}
func (*quiet) Warnf(string, ...any)  {}
func (*quiet) Fatalf(string, ...any) {}

// Errorf keeps what it is told.
func (q *quiet) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	q.last.Store(&text)
}

// words is the last error, or what to say without one.
func (q *quiet) words(otherwise string) string {
	if last := q.last.Load(); last != nil {
		return *last
	}
	return otherwise
}
