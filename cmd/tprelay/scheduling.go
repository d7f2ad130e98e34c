package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// How the kernel schedules the relay's threads where they share their CPUs with clients, servers
// or others. docs/experiments.md has the measurements.
//
// Under SCHED_BATCH a thread that is woken does not interrupt who runs: the relay finds more to do
// when its turn comes, and senders and receivers are not stopped in the middle of their work for
// each of its wake-ups. On a CPU that is idle it runs at once, as under the default policy.
//
// With a longer time slice (sched_setattr, Linux 6.12 and later) it is interrupted less often in
// the middle of a batch than with the usual 3 ms. Its part of the CPU stays what it is with both.

// The kernel takes 0.1 to 100 ms (__setparam_fair in kernel/sched/syscalls.c).
const minTimeSlice, maxTimeSlice = 100 * time.Microsecond, 100 * time.Millisecond

// scheduling is what is asked of the kernel.
type scheduling struct {
	batch bool          // SCHED_BATCH, or else the policy that the process was started with
	slice time.Duration // 0: the kernel's own
}

// apply asks for it for all threads of this process that run under the default policy, or
// SCHED_BATCH; those that they start later inherit it. Older kernels have no time slices of one's
// own, and then that part is left out.
func (s scheduling) apply() error {
	for range 10 { // a thread may start another while it is looked for
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
			if err != nil && err != unix.ESRCH { // it has ended
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

// applyTo reports whether anything was to be changed of the thread.
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
		return false, nil // whoever chose it knows why
	}
	if s.slice > 0 && attr.Runtime > 0 {
		want.Runtime = uint64(s.slice)
	}
	if want == *attr {
		return false, nil
	}
	return true, unix.SchedSetAttr(tid, &want, 0)
}
