package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The scheduler of Linux 6.12 and later lets each thread say for how long it wants to run at a
// time (sched_setattr, SCHED_OTHER). A relay that shares its CPUs with clients, servers or others
// is interrupted less often in the middle of a batch with more than the usual 3 ms; its part of
// the CPU stays what it is. bench/RESULTS.md has what it gives.

// The kernel takes 0.1 to 100 ms (__setparam_fair in kernel/sched/syscalls.c).
const minTimeSlice, maxTimeSlice = 100 * time.Microsecond, 100 * time.Millisecond

// setTimeSlice asks for that of all threads of this process that run under the default policy;
// those that they start later inherit it. Older kernels have nothing of the kind, and then nothing
// happens.
func setTimeSlice(slice time.Duration) error {
	for range 10 { // a thread may start another while it is looked for
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("time slice: %w", err)
		}
		changed := false
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil {
				return fmt.Errorf("time slice: thread %q: %w", thread.Name(), err)
			}
			set, err := setThreadTimeSlice(tid, slice)
			if err != nil && err != unix.ESRCH { // it has ended
				return fmt.Errorf("time slice: sched_setattr: %w", err)
			}
			changed = changed || set
		}
		if !changed {
			return nil
		}
	}
	return nil
}

// setThreadTimeSlice reports whether the thread had another one.
func setThreadTimeSlice(tid int, slice time.Duration) (bool, error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return false, err
	}
	ours := attr.Policy == unix.SCHED_NORMAL || attr.Policy == unix.SCHED_BATCH
	if !ours || attr.Runtime == 0 || attr.Runtime == uint64(slice) {
		return false, nil
	}
	attr.Runtime = uint64(slice)
	return true, unix.SchedSetAttr(tid, attr, 0)
}
