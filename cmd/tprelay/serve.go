package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// errForced is the result of a second signal, which resets connections instead of draining.
var errForced = errors.New("stopped by a second signal: open connections were reset")

// relay is the part of *engine.Engine that a server needs.
type relay interface {
	Run(context.Context) error
	Close() error
}

// server runs a relay until it ends by itself, a signal ends it, or a new process has taken
// over.
type server struct {
	relay  relay
	log    *slog.Logger
	reopen func() // SIGHUP
	// upgrade starts the new program and hands the relay over. On error this process
	// continues.
	upgrade    func(context.Context) (successor, int, error)
	handedOver func() // closes the sockets that only one process should serve
	supervisor *supervisor
	status     string // for the supervisor during normal operation

	drain    context.CancelFunc
	abandon  context.CancelCauseFunc
	upgraded chan upgraded // not nil while an upgrade is in progress
	draining bool
	forced   bool
	left     bool      // a new process has taken over
	later    os.Signal // arrived during the upgrade; handled after it
}

// upgraded is the result of an upgrade.
type upgraded struct {
	next successor
	left int
	err  error
}

// serve runs the relay. The first SIGTERM or SIGINT drains, the second closes. SIGHUP reopens
// the logs, SIGUSR2 upgrades.
func (s *server) serve(signals <-chan os.Signal) error {
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	s.drain = drain
	ended := make(chan error, 1)
	go func() { ended <- s.relay.Run(ctx) }()
	for {
		select {
		case err := <-ended:
			// The relay also ends when everything was handed over, possibly before the
			// result of the upgrade arrives here.
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
		// Pairs on their way to the new process must arrive first, otherwise they are lost.
		s.log.Info("signal deferred until the upgrade is done", "signal", sig.String())
		s.later = sig
	case !s.draining && s.upgraded == nil:
		s.draining = true
		s.supervisor.stopping()
		s.log.Info("draining; a second signal resets all connections", "signal", sig.String())
		s.drain()
	case !s.forced:
		s.forced = true
		s.log.Warn("resetting all connections", "signal", sig.String())
		if s.upgraded != nil {
			s.abandon(errForced)
		}
		if err := s.relay.Close(); err != nil {
			s.log.Error("closing the relay failed", "err", err)
		}
	}
}

func (s *server) beginUpgrade() {
	switch {
	case s.upgraded != nil:
		s.log.Warn("SIGUSR2 ignored: an upgrade is in progress")
		return
	case s.draining || s.left:
		s.log.Warn("SIGUSR2 ignored: this process is shutting down")
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

// conclude handles the result of an upgrade.
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
	s.log.Info("upgraded: the new process has taken over", "new_pid", r.next.PID(), "pairs_left", r.left)
	s.supervisor.resign(r.next.PID(), s.status)
	s.handedOver()
	if later != nil {
		// The signal was meant for the relay, which is the new process now.
		if err := r.next.Signal(later); err != nil {
			s.log.Error("the signal could not be passed on to the new process", "signal", later.String(), "err", err)
		}
	}
}
