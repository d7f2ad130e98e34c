package engine

import (
	"context"
	"fmt"
)

// Ping waits until every loop has answered, which a loop that is stuck in a callback does not. It
// is for watchdogs. The error is ErrNotRunning before Run, ErrClosed after the end, and ErrOnLoop
// in a callback. When ctx ends first, the error wraps ctx.Err and says how many loops have not
// answered.
func (e *Engine) Ping(ctx context.Context) error {
	if err := e.runs(); err != nil {
		return err
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
