// Package leak finds what a test leaves behind in its process: open descriptors, goroutines,
// child processes, and threads that are still in another network namespace.
package leak

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// patience is how long things that go away by themselves may take: a goroutine that returns, a
// thread that ends. It is long because only a test that fails waits for it.
const patience = time.Minute

// Resources are what this process holds at a moment.
type Resources struct {
	Descriptors map[int]string    // open descriptors, and what each refers to
	Goroutines  map[uint64]string // stacks by the goroutine's number
	Children    map[int]string    // child processes, zombies included, and their names
	Namespaces  map[string]string // network namespaces, and one of our threads in each
}

// Snapshot returns what this process holds now. The runtime's own descriptors and goroutines are
// left out where they come and go by themselves.
func Snapshot() Resources {
	wakePoller()
	return Resources{Descriptors: Descriptors(), Goroutines: goroutines(), Children: children(), Namespaces: namespaces()}
}

// Since returns one line for each thing in r that was not there before. A goroutine's is its stack.
func (r Resources) Since(before Resources) []string {
	var news []string
	for fd, to := range r.Descriptors {
		if before.Descriptors[fd] != to {
			news = append(news, fmt.Sprintf("descriptor %d: %s", fd, to))
		}
	}
	for id, stack := range r.Goroutines {
		if _, ok := before.Goroutines[id]; !ok {
			news = append(news, stack)
		}
	}
	for pid, name := range r.Children {
		if _, ok := before.Children[pid]; !ok {
			news = append(news, fmt.Sprintf("process %d: %s", pid, name))
		}
	}
	for namespace, thread := range r.Namespaces {
		if _, ok := before.Namespaces[namespace]; !ok {
			news = append(news, fmt.Sprintf("thread %s in namespace %s", thread, namespace))
		}
	}
	slices.Sort(news)
	return news
}

// T is what [Check] needs of a test.
type T interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
}

// Check fails the test if, when all of its clean-up is done, the process holds more than now.
// Call it first: what a test registers with Cleanup before the call runs after the check. A test
// that runs in parallel with others passes once they have released what they hold.
func Check(t T) { check(t, patience) }

func check(t T, limit time.Duration) {
	before := Snapshot()
	t.Cleanup(func() {
		t.Helper()
		if news := before.left(limit); len(news) > 0 {
			t.Errorf("left behind:\n%s", strings.Join(news, "\n"))
		}
	})
}

// Main is for a package's TestMain. It runs all tests and returns the exit status: not 0 if the
// tests fail, or if they pass and the process then holds more than before. While the package is
// being fuzzed there is no check, for the fuzzer's own goroutines stay.
func Main(m interface{ Run() int }) int { return run(m, patience) }

func run(m interface{ Run() int }, limit time.Duration) int {
	before := Snapshot()
	status := m.Run()
	if fuzz := flag.Lookup("test.fuzz"); status != 0 || fuzz != nil && fuzz.Value.String() != "" {
		return status
	}
	if news := before.left(limit); len(news) > 0 {
		fmt.Fprintf(os.Stderr, "left behind:\n%s\n", strings.Join(news, "\n"))
		return 1
	}
	return 0
}

// left waits until the process holds no more than before, and returns what is left after limit.
func (r Resources) left(limit time.Duration) (news []string) {
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if news = Snapshot().Since(r); len(news) == 0 || time.Now().After(deadline) {
			return news
		}
	}
}

// wakePoller makes the runtime open the descriptors of its network poller, which it does at the
// first use and keeps.
func wakePoller() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

// Descriptors returns the open descriptors, and what each refers to.
func Descriptors() map[int]string {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		panic(err) // without /proc, nothing here means anything
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		panic(err)
	}
	fds := map[int]string{}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd == int(dir.Fd()) {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + name); err == nil { // it may be closed already
			fds[fd] = to
		}
	}
	return fds
}

// goroutines reads the stacks of all goroutines: "goroutine 7 [running]: ...".
func goroutines() map[uint64]string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[uint64]string{}
	for _, stack := range bytes.Split(buf, []byte("\n\n")) {
		var id uint64
		if _, err := fmt.Sscanf(string(stack), "goroutine %d ", &id); err != nil {
			continue
		}
		if bytes.Contains(stack, []byte("os/signal.signal_recv")) {
			continue // starts with the first signal.Notify and never ends
		}
		all[id] = string(stack)
	}
	return all
}

// children returns our child processes: names and states.
func children() map[int]string {
	processes, err := procfs.AllProcs()
	if err != nil {
		panic(err)
	}
	all := map[int]string{}
	for _, p := range processes {
		if stat, err := p.Stat(); err == nil && stat.PPID == os.Getpid() { // the process may have ended
			all[p.PID] = stat.Comm + " (" + stat.State + ")"
		}
	}
	return all
}

// namespaces returns the network namespaces of our threads.
func namespaces() map[string]string {
	links, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		panic(err)
	}
	all := map[string]string{}
	for _, link := range links {
		if namespace, err := os.Readlink(link); err == nil { // the thread may have ended
			all[namespace] = strings.Split(link, "/")[4]
		}
	}
	return all
}
