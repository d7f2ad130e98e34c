package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
)

// stuck is an observer that does what none may: it blocks.
type stuck struct{ release chan struct{} }

func (s stuck) PairOpened(engine.PairInfo) {}
func (s stuck) PairEnded(engine.PairInfo)  { <-s.release }

func TestPingTellsLoopsThatAreStuck(t *testing.T) {
	s := stuck{make(chan struct{})}
	r := newRig(t, engine.Options{Observer: s, Loops: 3})
	if err := r.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	client, _ := r.pair()
	rst(client)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		err := r.Ping(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && err.Error() == "1 of 3 loops do not answer: context deadline exceeded" {
			break
		}
	}
	close(s.release)
	if err := r.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	r.end()
	if err := r.Ping(context.Background()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	fresh, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.Ping(context.Background()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("before Run: %v", err)
	}
}
