package splice_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// taskVariable names what a child process of the tests is to do instead of
// running them.
const taskVariable = "SPLICE_TEST_TASK"

// TestMain ends with a count: no test may leave a descriptor or a goroutine.
func TestMain(m *testing.M) {
	if os.Getenv(taskVariable) == limitTask {
		os.Exit(runLimitTask())
	}
	if r, w, err := os.Pipe(); err == nil { // with the first pipe the runtime opens its own poller
		r.Close()
		w.Close()
	}
	open, running := len(descriptors()), runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && !settles(func() bool { return len(descriptors()) <= open && runtime.NumGoroutine() <= running }) {
		fmt.Fprintf(os.Stderr, "left behind: %d descriptors before, now %v; %d goroutines before, %d now\n",
			open, descriptors(), running, runtime.NumGoroutine())
		code = 1
	}
	os.Exit(code)
}

// descriptors lists what is open.
func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	var open []string
	for _, e := range entries {
		if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // without the one that listed them
			open = append(open, e.Name()+" "+what)
		}
	}
	return open
}

// settles waits until condition holds, for five seconds at most.
func settles(condition func() bool) bool {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if condition() {
			return true
		}
	}
	return condition()
}
