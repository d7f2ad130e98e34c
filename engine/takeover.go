package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
)

// TakeOver makes an engine that takes the listeners and the live pairs over from the engine of
// another process, which calls HandOver with the other end of conn. It is New for the rest: a
// listener of the options uses the sockets that come over conn with its address and mode, and is
// opened where none do; what the options do not name is no longer listened on. It fails where the
// limit for descriptors (RLIMIT_NOFILE) cannot hold the pairs that will come.
//
// TakeOver waits for what the other engine says first, and fails with the cause of ctx when that is
// cancelled before. It uses the deadlines of conn for that. ctx ends nothing after TakeOver has
// returned. On error conn stays the caller's. On success it is the engine's, which closes it when
// the hand-over is done, or when the engine ends.
//
// Run says that it is ready, and takes the pairs in. It accepts when it has them all, or when the
// other process is gone. Where it cannot go on, for want of descriptors for example, Run resets
// what it has and returns the error: the other engine goes on with the rest.
func TakeOver(ctx context.Context, options Options, conn *net.UnixConn) (*Engine, error) {
	link, err := handover.NewLink(conn)
	if err != nil {
		return nil, err
	}
	defer link.Within(ctx)()
	r := handover.NewReceiver(link)
	hello, sockets, err := r.Greet()
	if err != nil {
		return nil, err
	}
	rest := sockets
	options.Listeners = slices.Clone(options.Listeners)
	for i := range options.Listeners {
		if err := options.Listeners[i].numericZones(); err != nil {
			handover.CloseSockets(sockets)
			return nil, err
		}
		rest = options.Listeners[i].takeSockets(rest)
	}
	e, err := New(options)
	if err != nil {
		handover.CloseSockets(sockets)
		return nil, err
	}
	for _, s := range rest {
		e.options.Logger.Warn("no longer listening", "listen", s.Address, "mode", s.Mode)
	}
	handover.CloseSockets(rest)
	if room, err := roomForPairs(); err != nil || room < hello.Pairs {
		e.discard()
		if err == nil {
			err = roomError(room, hello.Pairs)
		}
		return nil, err
	}
	e.generation = hello.Generation + 1
	e.inherits = r
	for _, l := range e.loops {
		l.stopAccepting(true)
	}
	return e, nil
}

// takeOverReserve is how many descriptors are left to the rest of the process while pairs come
// over: to clients of an admin end, for example.
const takeOverReserve = 16

// roomForPairs is how many pairs can come over before the process runs out of descriptors.
func roomForPairs() (int, error) {
	most, err := mostDescriptors()
	if err != nil {
		return 0, err
	}
	free, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0) // the lowest number that is free
	if err != nil {
		return 0, fmt.Errorf("hand-over: %w", err)
	}
	unix.Close(free)
	return max(most-takeOverReserve-free, 0) / 2, nil
}

func roomError(room, pairs int) error {
	return fmt.Errorf("hand-over: the new process has descriptors for %d connections, and %d are to come; raise the limit (ulimit -n, LimitNOFILE)", room, pairs)
}

// takeSockets takes those that are for l and gives the others back.
func (l *Listener) takeSockets(sockets []handover.Socket) (others []handover.Socket) {
	if len(l.Sockets) > 0 { // the caller's own
		return sockets
	}
	for _, s := range sockets {
		port := l.Address.Port()
		if port == 0 && len(l.inherited) == 0 || port == s.Address.Port() {
			if l.Address.Addr() == s.Address.Addr() && l.Mode == s.Mode {
				l.Address = s.Address
				l.inherited = append(l.inherited, s.FD)
				continue
			}
		}
		others = append(others, s)
	}
	return others
}

// takesOver reports whether pairs may still come over.
func (e *Engine) takesOver() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inherits != nil
}

// takeOver takes the pairs in that come over, until there are no more, and begins to accept. It
// runs beside the loops, and ends at the latest when they have. On error it ends the engine.
func (e *Engine) takeOver(r *handover.Receiver) error {
	n, err := e.takePairs(r)
	e.mu.Lock()
	e.inherits = nil
	e.mu.Unlock()
	switch {
	case e.runs() != nil:
		err = nil // the engine has ended, and takes no more pairs
	case err == nil:
		e.options.Logger.Info("took over", "pairs", n)
	case errors.Is(err, handover.ErrPeerGone):
		e.options.Logger.Warn("the process before has ended in the middle of the hand-over; this one goes on", "pairs", n, "err", err)
		err = nil
	default:
		err = fmt.Errorf("%w (after %d pairs had moved)", err, n)
		e.each((*loop).abort)
	}
	if err == nil {
		e.ask(func(l *loop) { l.stopAccepting(false) })
	}
	r.Close()
	return err
}

// takePairs serves pairs as they come, and says how many came. Package handover has the states of
// the receiver, and of the pairs that it holds.
func (e *Engine) takePairs(r *handover.Receiver) (n int, err error) {
	e.ask(func(*loop) {}) // every loop runs
	room, err := roomForPairs()
	if err != nil {
		return 0, err
	}
	if err := r.Ready(room); err != nil {
		return 0, err
	}
	for {
		pairs, err := r.Next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		for i := range pairs {
			if err != nil || !e.postNext(func(l *loop) { l.takeIn(pairs[i]) }) {
				pairs[i].Close()
				err = ErrClosed
				continue
			}
			n++
		}
		if err != nil {
			return n, err
		}
	}
}
