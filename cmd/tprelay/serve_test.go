package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeRelay runs until it is closed, or until it is drained if drains is set.
type fakeRelay struct {
	drains  bool
	result  error
	drained chan struct{}
	closed  chan struct{}
}

func newFakeRelay(drains bool, result error) *fakeRelay {
	return &fakeRelay{drains, result, make(chan struct{}), make(chan struct{})}
}

func (f *fakeRelay) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		close(f.drained)
	case <-f.closed:
		return f.result
	}
	if !f.drains {
		<-f.closed
	}
	return f.result
}

func (f *fakeRelay) Close() error {
	close(f.closed)
	return errors.New("close failed")
}

func TestServe(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name    string
		relay   *fakeRelay
		signals []os.Signal
		want    error
		reopens int
	}{
		{"drain", newFakeRelay(true, nil), []os.Signal{unix.SIGTERM}, nil, 0},
		{"drain told as cancelled", newFakeRelay(true, context.Canceled), []os.Signal{unix.SIGINT}, nil, 0},
		{"failure while draining", newFakeRelay(true, broken), []os.Signal{unix.SIGTERM}, broken, 0},
		{"second signal", newFakeRelay(false, nil), []os.Signal{unix.SIGTERM, unix.SIGINT}, errForced, 0},
		{"third signal", newFakeRelay(false, nil), []os.Signal{unix.SIGTERM, unix.SIGTERM, unix.SIGTERM}, errForced, 0},
		{"hang-ups", newFakeRelay(true, nil), []os.Signal{unix.SIGHUP, unix.SIGHUP, unix.SIGTERM}, nil, 2},
	} {
		signals := make(chan os.Signal, len(c.signals))
		for _, s := range c.signals {
			signals <- s
		}
		reopens := 0
		err := serve(c.relay, signals, func() { reopens++ }, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if !errors.Is(err, c.want) || c.want == nil && err != nil || reopens != c.reopens {
			t.Errorf("%s: %v after %d reopens, want %v after %d", c.name, err, reopens, c.want, c.reopens)
		}
	}
}

func TestServeEndsWithTheRelay(t *testing.T) {
	broken := errors.New("broken")
	r := newFakeRelay(true, broken)
	close(r.closed)
	if err := serve(r, nil, func() {}, slog.New(slog.DiscardHandler)); !errors.Is(err, broken) {
		t.Error(err)
	}
}
