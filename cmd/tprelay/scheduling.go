package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// How the kernel schedules the relay's threads on CPUs that they share with other programs.
// docs/experiments.md has the measurements.
//
// Under SCHED_BATCH a thread that wakes up does not preempt the running thread. The relay then
// finds more work when its turn comes, and senders and receivers are not preempted for each of
// its wake-ups. On an idle CPU it runs at once, as under the default policy.
//
// With a longer time slice (sched_setattr, Linux 6.12 and later) the relay is preempted less
// often in the middle of a batch than with the usual 3 ms. Neither setting changes the relay's
// share of the CPU.

// The kernel accepts 0.1 to 100 ms (__setparam_fair in kernel/sched/syscalls.c).
const minTimeSlice, maxTimeSlice = 100 * time.Microsecond, 100 * time.Millisecond

// scheduling holds the wanted settings.
type scheduling struct {
	batch bool          // SCHED_BATCH; otherwise the policy stays as it is
	slice time.Duration // 0: the kernel's default
}

// apply changes all threads of this process that run under the default policy or SCHED_BATCH.
// Threads started later inherit the settings. Kernels before 6.12 have no per-thread time slice;
// the slice is then not set.
func (s scheduling) apply() error {
	for range 10 { // again, because threads may start others meanwhile
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("scheduling: %w", err)
		}
		changed := false
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil {
				return fmt.Errorf("scheduling: thread %q: %w", thread.Name(), err)
			}
			set, err := s.applyTo(tid)
			if err != nil && err != unix.ESRCH { // ESRCH: the thread has ended
				return fmt.Errorf("scheduling: sched_setattr: %w", err)
			}
			changed = changed || set
		}
		if !changed {
			return nil
		}
	}
	return nil
}

// applyTo changes one thread and reports whether its settings differed.
func (s scheduling) applyTo(tid int) (bool, error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return false, err
	}
	want := *attr
	switch attr.Policy {
	case unix.SCHED_NORMAL:
		if s.batch {
			want.Policy = unix.SCHED_BATCH
		}
	case unix.SCHED_BATCH:
	default:
		return false, nil // the operator chose another policy
	}
	if s.slice > 0 && attr.Runtime > 0 {
		want.Runtime = uint64(s.slice)
	}
	if want == *attr {
		return false, nil
	}
	return true, unix.SchedSetAttr(tid, &want, 0)
}
