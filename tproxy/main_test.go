package tproxy_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// taskVariable names what a child process of the tests is to do instead of
// running them.
const taskVariable = "TPROXY_TEST_TASK"

// TestMain ends with a count: no test may leave a descriptor, a goroutine, or a
// thread in another network namespace.
func TestMain(m *testing.M) {
	if task := os.Getenv(taskVariable); task != "" {
		os.Exit(runTask(task))
	}
	if r, w, err := os.Pipe(); err == nil { // with the first pipe the runtime opens its own poller
		r.Close()
		w.Close()
	}
	open, running, home := len(descriptors()), runtime.NumGoroutine(), namespaces()
	code := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(code) // the fuzzer's own goroutines stay
	}
	if code == 0 && !settles(func() bool {
		return len(descriptors()) <= open && runtime.NumGoroutine() <= running && slices.Equal(namespaces(), home)
	}) {
		fmt.Fprintf(os.Stderr, "left behind: %d descriptors before, now %v; %d goroutines before, %d now; namespaces before %v, now %v\n",
			open, descriptors(), running, runtime.NumGoroutine(), home, namespaces())
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

// namespaces lists the network namespaces that our threads are in.
func namespaces() []string {
	links, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		panic(err)
	}
	var in []string
	for _, link := range links {
		if ns, err := os.Readlink(link); err == nil { // the thread may have ended
			in = append(in, ns)
		}
	}
	slices.Sort(in)
	return slices.Compact(in)
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
