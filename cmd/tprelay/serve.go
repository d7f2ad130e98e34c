package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// errForced is how a relay ends that was not given the time to drain.
var errForced = errors.New("ended at once by a second signal: open connections were reset")

// relay is what serving needs of an engine.
type relay interface {
	Run(context.Context) error
	Close() error
}

// server runs a relay until it ends by itself, signals end it, or a new program has
// taken over.
type server struct {
	relay  relay
	log    *slog.Logger
	reopen func() // SIGHUP
	// upgrade starts the new program and hands the relay over; the error says why this
	// one goes on.
	upgrade    func(context.Context) (successor, int, error)
	handedOver func() // closes what two processes should not both answer
	supervisor *supervisor
	status     string // for the supervisor, while all is well

	drain    context.CancelFunc
	abandon  context.CancelCauseFunc
	upgraded chan upgraded // while an upgrade is under way
	draining bool
	forced   bool
	left     bool      // a new program serves
	later    os.Signal // came during the upgrade, which goes first
}

// upgraded is how an upgrade went.
type upgraded struct {
	next successor
	left int
	err  error
}

// serve runs the relay. The first SIGTERM or SIGINT drains, the second closes; SIGHUP
// reopens the logs, SIGUSR2 upgrades.
func (s *server) serve(signals <-chan os.Signal) error {
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	s.drain = drain
	ended := make(chan error, 1)
	go func() { ended <- s.relay.Run(ctx) }()
	for {
		select {
		case err := <-ended:
			// The relay also ends when all was handed over, maybe before we were told.
			if s.upgraded != nil {
				s.conclude(<-s.upgraded)
			}
			switch {
			case s.forced:
				return errForced
			case s.draining && errors.Is(err, context.Canceled):
				return nil
			}
			return err
		case result := <-s.upgraded:
			s.conclude(result)
		case sig := <-signals:
			s.signal(sig)
		}
	}
}

func (s *server) signal(sig os.Signal) {
	switch {
	case sig == unix.SIGHUP:
		s.reopen()
	case sig == unix.SIGUSR2:
		s.beginUpgrade()
	case s.upgraded != nil && s.later == nil:
		// What is on its way to the new program must arrive first, or it is lost.
		s.log.Info("an upgrade is under way: it goes first", "signal", sig.String())
		s.later = sig
	case !s.draining && s.upgraded == nil:
		s.draining = true
		s.supervisor.stopping()
		s.log.Info("draining; a second signal ends at once", "signal", sig.String())
		s.drain()
	case !s.forced:
		s.forced = true
		s.log.Warn("ending at once", "signal", sig.String())
		if s.upgraded != nil {
			s.abandon(errForced)
		}
		if err := s.relay.Close(); err != nil {
			s.log.Error("close", "err", err)
		}
	}
}

func (s *server) beginUpgrade() {
	switch {
	case s.upgraded != nil:
		s.log.Warn("SIGUSR2 ignored: an upgrade is under way")
		return
	case s.draining || s.left:
		s.log.Warn("SIGUSR2 ignored: this process is about to end")
		return
	}
	s.log.Info("upgrade: starting the new program")
	s.supervisor.upgrading()
	ctx, abandon := context.WithCancelCause(context.Background())
	s.abandon = abandon
	done := make(chan upgraded, 1)
	s.upgraded = done
	go func() {
		next, left, err := s.upgrade(ctx)
		done <- upgraded{next, left, err}
	}()
}

// conclude takes note of how an upgrade went.
func (s *server) conclude(r upgraded) {
	s.abandon(nil)
	s.upgraded = nil
	later := s.later
	s.later = nil
	if r.err != nil {
		s.log.Error("upgrade failed; this process goes on", "err", r.err)
		s.supervisor.ready(s.status)
		if later != nil && !s.forced {
			s.signal(later)
		}
		return
	}
	s.left = true
	s.log.Info("upgraded: the new program serves", "new_pid", r.next.PID(), "pairs_left", r.left)
	s.supervisor.resign(r.next.PID(), s.status)
	s.handedOver()
	if later != nil {
		// It was meant for the relay, and that is the new program now.
		if err := r.next.Signal(later); err != nil {
			s.log.Error("the signal could not be passed on to the new program", "signal", later.String(), "err", err)
		}
	}
}
