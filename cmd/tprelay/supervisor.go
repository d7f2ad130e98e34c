package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

const (
	// supervisorQueue is how many messages may wait for the service manager: all but
	// those of the watchdog are rare.
	supervisorQueue = 16
	// supervisorPatience is how long the end of the program waits for a manager that
	// does not take them.
	supervisorPatience = time.Second
)

// supervisor is the service manager that wants to be told how we are (sd_notify(3)):
// systemd, with Type=notify. Where there is none, nothing happens.
//
// A manager that takes no messages blocks the socket, so one goroutine tells it, and
// everybody else only queues.
type supervisor struct {
	watchdog time.Duration // how often it wants to hear that we live; 0: not at all
	log      *slog.Logger
	notify   func(state string) error
	states   chan string
	stop     chan struct{}
	done     chan struct{} // closed when all was told
	resigned atomic.Bool   // another process is the main one now
}

// newSupervisor reads the environment, which stays as it is for a program that is to
// replace this one.
func newSupervisor(log *slog.Logger) *supervisor {
	s := tellBy(log, func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	})
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("no watchdog", "err", err)
	}
	s.watchdog = interval
	return s
}

// tellBy is a supervisor that notify reaches.
func tellBy(log *slog.Logger, notify func(state string) error) *supervisor {
	s := &supervisor{
		log:    log,
		notify: notify,
		states: make(chan string, supervisorQueue),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go s.run()
	return s
}

// run tells what is queued, in order.
func (s *supervisor) run() {
	defer close(s.done)
	for {
		select {
		case state := <-s.states:
			s.pass(state)
			continue
		default:
		}
		select {
		case state := <-s.states:
			s.pass(state)
		case <-s.stop:
			if len(s.states) == 0 {
				return
			}
		}
	}
}

func (s *supervisor) pass(state string) {
	if err := s.notify(state); err != nil {
		s.log.Warn("the service manager cannot be told how the relay is", "err", err)
	}
}

// tell queues a message. It never waits.
func (s *supervisor) tell(states ...string) {
	if s.resigned.Load() {
		return
	}
	select {
	case s.states <- strings.Join(states, "\n"):
	default:
		s.log.Warn("the service manager takes no messages: it was not told", "state", states[0])
	}
}

// close waits until all is told, but no longer than patience.
func (s *supervisor) close(patience time.Duration) {
	close(s.stop)
	select {
	case <-s.done:
	case <-time.After(patience):
	}
}

func (s *supervisor) ready(status string) { s.tell(daemon.SdNotifyReady, "STATUS="+status) }

func (s *supervisor) stopping() { s.tell(daemon.SdNotifyStopping, "STATUS=draining") }

func (s *supervisor) upgrading() {
	s.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "STATUS=starting the new program")
}

// resign makes pid the main process. Only the old one can say so, and it is the last
// that it says: the manager does not listen to others.
func (s *supervisor) resign(pid int, status string) {
	s.tell(fmt.Sprintf("MAINPID=%d", pid), daemon.SdNotifyReady, "STATUS="+status)
	s.resigned.Store(true)
}

// watch tells the manager that all is well for as long as alive says so, which it is
// asked twice in each of the manager's intervals, until ctx ends.
func (s *supervisor) watch(ctx context.Context, alive func(context.Context) error) {
	if s.watchdog <= 0 {
		return
	}
	interval := s.watchdog / 2
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		patience, cancel := context.WithTimeout(ctx, interval)
		err := alive(patience)
		cancel()
		switch {
		case err == nil:
			s.tell(daemon.SdNotifyWatchdog)
		case ctx.Err() == nil:
			s.log.Error("not telling the watchdog that all is well", "err", err)
		}
	}
}
