package worker

import (
	"fmt"
	"sync/atomic"
)

// GnetLog is a logger for gnet that prints nothing, as standard output is for results. It keeps the
// last error, since gnet does not return all of them.
type GnetLog struct{ last atomic.Pointer[string] }

// Debugf drops the message.
func (*GnetLog) Debugf(string, ...any) {}

// Infof drops the message.
func (*GnetLog) Infof(string, ...any) {}

// Warnf drops the message.
func (*GnetLog) Warnf(string, ...any) {}

// Fatalf drops the message.
func (*GnetLog) Fatalf(string, ...any) {}

// Errorf keeps the message.
func (l *GnetLog) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.last.Store(&text)
}

// LastError is the last error, or otherwise if there was none.
func (l *GnetLog) LastError(otherwise string) string {
	if last := l.last.Load(); last != nil {
		return *last
	}
	return otherwise
}
