// Package account reads from the kernel what processes have used.
package account

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process returns the CPU time that the process has used so far, of all its threads
// that live: the sum of the first fields of /proc/PID/task/*/schedstat, in
// nanoseconds. (/proc/PID/schedstat is its first thread's alone.) Take it twice, and
// the difference is what was used in between.
//
// It is not rounded to ticks, as the times of /proc/PID/stat are, but a thread that
// is running may lack what it has used since the last tick. Threads that end in
// between take their past with them; whoever measures programs that end threads in
// mid-flight gets too little, and possibly less than nothing.
//
// The error wraps os.ErrNotExist if there is no such process.
func Process(pid int) (time.Duration, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	var sum time.Duration
	found := false
	for _, thread := range threads {
		text, err := os.ReadFile(dir + thread.Name() + "/schedstat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended since
		}
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		used, err := parse(string(text))
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: thread %s: %w", pid, thread.Name(), err)
		}
		sum, found = sum+used, true
	}
	if !found {
		return 0, fmt.Errorf("CPU time of process %d: it has no threads any more: %w", pid, os.ErrNotExist)
	}
	return sum, nil
}

// parse reads "12345 678 9": time on a CPU, time waiting for one, times that it got
// one.
func parse(schedstat string) (time.Duration, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(schedstat), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil || ns < 0 {
		return 0, fmt.Errorf("schedstat %q: want nanoseconds first", schedstat)
	}
	return time.Duration(ns), nil
}
