package engine

import (
	"context"
	"fmt"
)

// Ping waits until every loop has answered: it is alive and not stuck in an observer
// or an interceptor. For watchdogs. The error is ErrClosed when the engine does not
// run, and says how many loops have not answered when ctx ends first.
func (e *Engine) Ping(ctx context.Context) error {
	if !e.isRunning() {
		return ErrClosed
	}
	answers := make(chan struct{}, len(e.loops))
	for _, l := range e.loops {
		if !l.mailbox.post(func(*loop) { answers <- struct{}{} }) {
			return ErrClosed
		}
	}
	for n := range e.loops {
		select {
		case <-answers:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d loops do not answer: %w", len(e.loops)-n, len(e.loops), ctx.Err())
		}
	}
	return nil
}
