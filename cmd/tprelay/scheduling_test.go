package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSchedulingOfAllThreads(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if own.Policy != unix.SCHED_NORMAL {
		t.Fatalf("the test itself runs under policy %d", own.Policy)
	}
	const most = 90 * time.Millisecond // unlike the default
	for _, c := range []struct {
		args   []string
		policy uint32
		slice  uint64
	}{
		{nil, unix.SCHED_BATCH, uint64(8 * time.Millisecond)},
		{[]string{"--time-slice", most.String()}, unix.SCHED_BATCH, uint64(most)},
		{[]string{"--no-batch", "--time-slice", most.String()}, unix.SCHED_NORMAL, uint64(most)},
		{[]string{"--time-slice", "0"}, unix.SCHED_BATCH, own.Runtime},
		{[]string{"--no-batch", "--time-slice", "0"}, unix.SCHED_NORMAL, own.Runtime},
	} {
		if own.Runtime == 0 { // a kernel without time slices of one's own
			c.slice = 0
		}
		p := start(t, echo(t), append(c.args, "--loops", "3")...)
		p.line("listening")
		tasks, err := filepath.Glob("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/task/*")
		if err != nil || len(tasks) < 2 {
			t.Fatal(tasks, err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				t.Fatal(err)
			}
			attr, err := unix.SchedGetAttr(tid, 0)
			if err == unix.ESRCH {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if attr.Policy != c.policy || attr.Runtime != c.slice || attr.Nice != own.Nice {
				t.Errorf("%v: thread %d has %+v, want policy %d, %v, and the rest as in %+v", c.args, tid, *attr, c.policy, time.Duration(c.slice), *own)
			}
		}
		p.signal(os.Interrupt)
		p.wait()
	}
}

// Whoever gave the relay a policy of another kind knows why.
func TestSchedulingLeavesOtherPoliciesAlone(t *testing.T) {
	done := make(chan error)
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0); err != nil {
			done <- err
			return
		}
		set, err := scheduling{batch: true, slice: time.Millisecond}.applyTo(0)
		if attr, _ := unix.SchedGetAttr(0, 0); set || attr != nil && attr.Policy != unix.SCHED_IDLE {
			t.Errorf("set: %v; %+v", set, *attr)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
