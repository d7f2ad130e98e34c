package relays

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

const (
	startTimeout = 15 * time.Second // until a relay listens
	stopTimeout  = 2 * time.Second  // for a relay to end after SIGTERM
)

// Running is a relay that was started.
type Running struct {
	relay  Relay
	target netip.AddrPort
	cmds   []*netlab.Cmd
	undo   []func() error // done last to first

	stop    sync.Once
	stopErr error
}

// Start starts the relay on h2 of the lab, diverts h1's connections to it where its Way asks for
// that, and returns when it accepts connections. After an error nothing is left, and the error has
// the relay's last words. The relay ends with ctx at the latest; Stop cleans up in any case.
func (p Relay) Start(ctx context.Context, env Env) (*Running, error) {
	if missing := p.Missing(); missing != "" {
		return nil, errors.New(missing)
	}
	r := &Running{relay: p, target: env.Server}
	if p.Way == Direct {
		return r, nil
	}
	if env.Processes > 1 && !p.shares {
		return nil, fmt.Errorf("relay %s: cannot share its port between %d processes", p.Name, env.Processes)
	}
	s := site{Env: env, way: p.Way, listen: env.listenAt(p.Way)}
	if p.Way == Forward {
		r.target = s.listen
	}
	if err := r.start(ctx, s); err != nil {
		r.end()
		return nil, fmt.Errorf("relay %s: %w", p.Name, err)
	}
	return r, nil
}

func (r *Running) start(ctx context.Context, s site) error {
	temp, err := s.Lab.TempDir()
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(temp, r.relay.Name+"-"); err != nil {
		return err
	}
	r.undo = append(r.undo, func() error { return os.RemoveAll(s.dir) })
	untune, err := tune(s.Lab.H2)
	if err != nil {
		return err
	}
	r.undo = append(r.undo, untune)
	processes, err := r.relay.recipe(s)
	if err != nil {
		return err
	}
	// The relay first: with rules but no relay, clients would reach the server directly.
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for range max(s.Processes, 1) {
		for _, p := range processes {
			cmd, err := s.run(ctx, p)
			if err != nil {
				return err
			}
			r.cmds = append(r.cmds, cmd)
			if err := awaitListeners(waiting, s.Lab.H2, cmd, p.ports); err != nil {
				return err
			}
		}
	}
	undivert, err := s.divert(ctx)
	if err != nil {
		return err
	}
	r.undo = append(r.undo, undivert)
	return nil
}

// PIDs are the ids of its processes and their descendants. It is empty for Direct. Processes may
// come and go meanwhile.
func (r *Running) PIDs() []int {
	var pids []int
	for _, cmd := range r.cmds {
		pids = append(pids, family(cmd.PID())...)
	}
	return pids
}

// Target is where h1's clients connect to: the server, or with Forward the relay. For the server's
// next port it is the next port.
func (r *Running) Target() netip.AddrPort { return r.target }

// Err is nil while all processes of the relay run, and after that the first one's exit with its
// last words. The end of Start's context is no error.
func (r *Running) Err() error {
	for _, cmd := range r.cmds {
		select {
		case <-cmd.Done():
			err := cmd.Wait()
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("relay %s: %w", r.relay.Name, err)
			}
			return fmt.Errorf("relay %s: it ended by itself", r.relay.Name)
		default:
		}
	}
	return nil
}

// Stop ends the relay, by SIGTERM and then SIGKILL, removes the rules and restores the kernel's
// settings. The error says so if the relay had ended by itself. Further calls return the same.
func (r *Running) Stop() error {
	r.stop.Do(func() { r.stopErr = errors.Join(r.Err(), r.end()) })
	return r.stopErr
}

// end ends the processes and undoes the rest. After a second SIGTERM relays do not wait for their
// connections to end.
func (r *Running) end() error {
	for range 2 {
		for _, cmd := range r.cmds {
			tell(cmd, syscall.SIGTERM)
		}
		if r.ended(stopTimeout) {
			break
		}
	}
	for _, cmd := range r.cmds {
		cmd.Stop()
	}
	var errs []error
	for _, undo := range slices.Backward(r.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// tell sends a signal to a process and its group, as a shell does not pass it on. It does so only
// while the process has not been reaped: later its number may belong to another.
func tell(cmd *netlab.Cmd, sig syscall.Signal) {
	if cmd.Signal(syscall.Signal(0)) == nil {
		_ = syscall.Kill(-cmd.PID(), sig) // fails when it has just ended
	}
}

// ended waits that long for all processes to end, and says whether they have.
func (r *Running) ended(limit time.Duration) bool {
	late := time.After(limit)
	for _, cmd := range r.cmds {
		select {
		case <-cmd.Done():
		case <-late:
			return false
		}
	}
	return true
}
