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
	// supervisorQueue is the number of messages that may wait for the service manager. Only
	// those of the watchdog are frequent.
	supervisorQueue = 16
	// supervisorPatience is how long the program waits at its end for a service manager that
	// takes no messages.
	supervisorPatience = time.Second
)

// supervisor notifies the service manager of the relay's state (sd_notify(3)): systemd, with
// Type=notify. Without a service manager it does nothing.
//
// A manager that takes no messages blocks the socket, so one goroutine sends, and all others
// only queue.
type supervisor struct {
	watchdog time.Duration // the watchdog's interval; 0: no watchdog
	log      *slog.Logger
	notify   func(state string) error
	states   chan string
	stop     chan struct{}
	done     chan struct{} // closed when all messages were sent
	resigned atomic.Bool   // another process is the main process now
}

// newSupervisor reads NOTIFY_SOCKET and WATCHDOG_USEC, and leaves them in the environment for
// the new program of an upgrade.
func newSupervisor(log *slog.Logger) *supervisor {
	s := tellBy(log, func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	})
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog is off: its interval cannot be read", "err", err)
	}
	s.watchdog = interval
	return s
}

// tellBy returns a supervisor that sends by notify.
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

// run sends the queued messages in order.
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
		s.log.Warn("the service manager cannot be notified", "err", err)
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
		s.log.Warn("the service manager takes no messages; one was dropped", "state", states[0])
	}
}

// close waits until all messages are sent, no longer than patience.
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

// resign makes pid the main process and sends nothing after that: the manager accepts messages
// only from the main process.
func (s *supervisor) resign(pid int, status string) {
	s.tell(fmt.Sprintf("MAINPID=%d", pid), daemon.SdNotifyReady, "STATUS="+status)
	s.resigned.Store(true)
}

// watch calls alive twice in each interval of the watchdog, until ctx ends, and notifies the
// watchdog each time that it returns nil.
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
			s.log.Error("the watchdog is not notified: an event loop does not respond", "err", err)
		}
	}
}
