package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
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
		log := slog.New(slog.DiscardHandler)
		s := server{relay: c.relay, log: log, reopen: func() { reopens++ }, supervisor: silent(t)}
		err := s.serve(signals)
		if !errors.Is(err, c.want) || c.want == nil && err != nil || reopens != c.reopens {
			t.Errorf("%s: %v after %d reopens, want %v after %d", c.name, err, reopens, c.want, c.reopens)
		}
	}
}

func TestServeEndsWithTheRelay(t *testing.T) {
	broken := errors.New("broken")
	r := newFakeRelay(true, broken)
	close(r.closed)
	s := server{relay: r, supervisor: silent(t)}
	if err := s.serve(nil); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// silent is the supervisor where there is none.
func silent(t *testing.T) *supervisor {
	s := tellBy(slog.New(slog.DiscardHandler), func(string) error { return nil })
	t.Cleanup(func() { s.close(forever) })
	return s
}

// TestServeUpgrades: signals that come meanwhile, in every order with the end of it.
func TestServeUpgrades(t *testing.T) {
	failure := errors.New("it did not start")
	for _, c := range []struct {
		name    string
		during  []os.Signal // once the upgrade has begun
		err     error       // of the upgrade
		after   []os.Signal
		told    string // to the service manager
		next    []os.Signal
		drained bool
	}{
		{name: "success", told: "RELOADING READY"},
		{name: "success with SIGTERM", during: []os.Signal{unix.SIGTERM}, told: "RELOADING READY", next: []os.Signal{unix.SIGTERM}},
		{name: "failure", err: failure, after: []os.Signal{unix.SIGTERM}, told: "RELOADING READY STOPPING", drained: true},
		{name: "failure with SIGTERM", during: []os.Signal{unix.SIGUSR2, unix.SIGTERM}, err: failure, told: "RELOADING READY STOPPING", drained: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newFakeRelay(true, nil)
			log := slog.New(slog.DiscardHandler)
			var told []string
			manager := tellBy(log, func(state string) error {
				for line := range strings.Lines(state) {
					if name, ok := strings.CutSuffix(strings.TrimSpace(line), "=1"); ok {
						told = append(told, name)
					}
				}
				return nil
			})
			signals := make(chan os.Signal)
			next := &fakeProgram{}
			s := server{relay: r, log: log, supervisor: manager, handedOver: func() {}}
			s.upgrade = func(context.Context) (successor, int, error) {
				for _, sig := range c.during {
					signals <- sig
				}
				if c.err != nil {
					go func() {
						for _, sig := range c.after {
							signals <- sig
						}
					}()
					return nil, 0, c.err
				}
				close(r.closed) // as an engine that has nothing left
				return next, 0, nil
			}
			go func() { signals <- unix.SIGUSR2 }()
			if err := s.serve(signals); err != nil {
				t.Error(err)
			}
			manager.close(forever)
			if got := strings.Join(told, " "); got != c.told {
				t.Errorf("told %q, want %q", got, c.told)
			}
			if !slices.Equal(next.signals, c.next) {
				t.Errorf("the new program got %v, want %v", next.signals, c.next)
			}
			select {
			case <-r.drained:
				if !c.drained {
					t.Error("it was drained")
				}
			default:
				if c.drained {
					t.Error("it was not drained")
				}
			}
		})
	}
}
