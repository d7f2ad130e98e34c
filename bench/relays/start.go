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
	kindness     = 2 * time.Second  // for a relay to end when told to
)

// Running is a relay at work.
type Running struct {
	relay  Relay
	target netip.AddrPort
	cmds   []*netlab.Cmd
	undo   []func() error // done last to first

	stop    sync.Once
	stopErr error
}

// Start starts the relay on h2 of the lab, diverts h1's connections to it where its
// Way asks for that, and returns when it takes connections. The error holds what a
// relay that did not come up said last; nothing is left then. The relay ends with ctx
// at the latest; Stop cleans up after it in any event.
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
	// The relay first: rules without one would have clients reach the server directly.
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
	undivert, err := s.divert(ctx, r.relay.Way)
	if err != nil {
		return err
	}
	r.undo = append(r.undo, undivert)
	return nil
}

// PIDs are the ids of its processes, those included that they started. It is empty
// for Direct. Processes may come and go while it looks.
func (r *Running) PIDs() []int {
	var pids []int
	for _, cmd := range r.cmds {
		pids = append(pids, family(cmd.PID())...)
	}
	return pids
}

// Target is where h1's clients connect to: the server, or with Forward the relay.
// Who is served on the next port connects to the next port of it.
func (r *Running) Target() netip.AddrPort { return r.target }

// Err is nil while all processes of the relay run, and then how the first of them
// ended, with its last words. That Start's context ended them is no error.
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

// Stop ends the relay, kindly and then in any event, takes the rules down and puts
// the kernel's settings back. The error says so if the relay had ended before, by
// itself. Further calls return what the first returned.
func (r *Running) Stop() error {
	r.stop.Do(func() { r.stopErr = errors.Join(r.Err(), r.end()) })
	return r.stopErr
}

// end ends the processes and undoes the rest. Relays that are told twice do not
// wait for their connections to end.
func (r *Running) end() error {
	for range 2 {
		for _, cmd := range r.cmds {
			tell(cmd, syscall.SIGTERM)
		}
		if r.ended(kindness) {
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

// tell sends a signal to a process and those of its group: a shell does not pass it
// on. The group only while the process has not been reaped: later its number may be
// somebody else's.
func tell(cmd *netlab.Cmd, sig syscall.Signal) {
	if cmd.Signal(syscall.Signal(0)) == nil {
		_ = syscall.Kill(-cmd.PID(), sig) // fails when it has just ended
	}
}

// ended waits that long for all processes to end, and says whether they have.
func (r *Running) ended(patience time.Duration) bool {
	late := time.After(patience)
	for _, cmd := range r.cmds {
		select {
		case <-cmd.Done():
		case <-late:
			return false
		}
	}
	return true
}
