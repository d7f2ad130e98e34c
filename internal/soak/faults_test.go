package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// fault is something that is done to the relay or to the network.
type fault struct {
	name   string
	weight int
	reach  reach
	// inject does it and returns when it is over. An error means that it could not be done.
	inject func(context.Context, *life, *rand.Rand) error
}

// faultsOfProcess are what a relay lives through. The ones that it dies of are in
// run_test.go.
func faultsOfProcess() []fault {
	return append([]fault{
		{"stop", 6, cutsNothing, stopAndContinue},
		{"descriptors", 6, cutsNothing, takeDescriptors},
		{"upgrade", 12, cutsNothing, upgrade},
		{"broken upgrade", 8, cutsAll, breakUpgrade},
	}, faultsOfSystemCalls()...)
}

// chosen are those faults of a table that this run may use.
func (w *world) chosen(all []fault) []fault {
	return slices.DeleteFunc(slices.Clone(all), func(f fault) bool { return !w.allowed(f.name) })
}

func (w *world) allowed(name string) bool {
	return w.config.faults == nil || slices.Contains(w.config.faults, name)
}

// drawFault draws one by weight, if there is any.
func drawFault(all []fault, r *rand.Rand) (fault, bool) {
	total := 0
	for _, f := range all {
		total += f.weight
	}
	if total == 0 {
		return fault{}, false
	}
	n := r.IntN(total)
	for _, f := range all {
		if n -= f.weight; n < 0 {
			return f, true
		}
	}
	return fault{}, false
}

// suffer injects a fault and keeps the books.
func (w *world) suffer(ctx context.Context, f fault, l *life, r *rand.Rand) {
	i := w.ledger.begin(f.name, f.reach)
	defer w.ledger.end(i)
	if err := f.inject(ctx, l, r); err != nil && ctx.Err() == nil {
		w.fail("fault %s: %v", f.name, err)
	}
}

// upTo is a time between a tenth of d and d.
func upTo(d time.Duration, r *rand.Rand) time.Duration {
	return d/10 + time.Duration(r.Int64N(int64(d-d/10)))
}

// stopAndContinue freezes the relay: the kernel goes on for it.
func stopAndContinue(ctx context.Context, l *life, r *rand.Rand) error {
	if err := l.process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, upTo(2*time.Second, r))
	return l.process.Signal(unix.SIGCONT)
}

// takeDescriptors leaves the relay few descriptors, or none, beyond those that it has.
func takeDescriptors(ctx context.Context, l *life, r *rand.Rand) error {
	pid := l.process.PID()
	highest, err := highestDescriptor(pid)
	if err != nil {
		return err
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	low := unix.Rlimit{Cur: uint64(highest + 1 + r.IntN(12)), Max: before.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	pause(ctx, upTo(3*time.Second, r))
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	return nil
}

func highestDescriptor(pid int) (highest int, err error) {
	names, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name.Name()); err == nil {
			highest = max(highest, n)
		}
	}
	return highest, nil
}
