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

func TestTimeSliceOfAllThreads(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if own.Runtime == 0 {
		t.Skip("this kernel has no time slices of one's own: Linux 6.12 has")
	}
	const most = 90 * time.Millisecond // unlike the default
	for _, c := range []struct {
		args []string
		want uint64
	}{
		{nil, uint64(8 * time.Millisecond)},
		{[]string{"--time-slice", most.String()}, uint64(most)},
		{[]string{"--time-slice", "0"}, own.Runtime},
	} {
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
			if attr.Runtime != c.want || attr.Nice != own.Nice || attr.Policy != own.Policy {
				t.Errorf("%v: thread %d has %+v, want %v, and the rest as in %+v", c.args, tid, *attr, time.Duration(c.want), *own)
			}
		}
		p.signal(os.Interrupt)
		p.wait()
	}
}

// Whoever gave the relay a policy of another kind knows why.
func TestTimeSliceLeavesOtherPoliciesAlone(t *testing.T) {
	done := make(chan error)
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0); err != nil {
			done <- err
			return
		}
		_, err := setThreadTimeSlice(0, time.Millisecond)
		if attr, _ := unix.SchedGetAttr(0, 0); attr != nil && attr.Policy != unix.SCHED_IDLE {
			t.Errorf("%+v", *attr)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
