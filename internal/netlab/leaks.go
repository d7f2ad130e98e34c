package netlab

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Resources are what this process holds at a moment.
type Resources struct {
	FDs        map[int]string    // open descriptors, and what each refers to
	Goroutines map[uint64]string // stacks by the goroutine's number
	Children   map[int]string    // child processes, zombies included, and their names
}

// Snapshot returns what this process holds now. The runtime's own descriptors
// and goroutines are left out where they come and go by themselves.
func Snapshot() Resources {
	wakePoller()
	return Resources{FDs: openFDs(), Goroutines: goroutines(), Children: children()}
}

// Since returns one line (goroutines: their stack) for each thing in r that
// was not there before.
func (r Resources) Since(before Resources) []string {
	var news []string
	for fd, to := range r.FDs {
		if before.FDs[fd] != to {
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
	sort.Strings(news)
	return news
}

// CheckLeaks notes what the process holds, and returns a function that fails
// the test if it holds more by then: descriptors, goroutines, child processes.
// What goes away by itself has 5 s to do so. Not for tests that run in parallel
// with others. Register it first, so that it runs last; before a test that
// cleans up with t.Cleanup do likewise, as that runs after what was deferred:
//
//	t.Cleanup(netlab.CheckLeaks(t))
//	defer netlab.CheckLeaks(t)() // where nothing is left to t.Cleanup
func CheckLeaks(t interface {
	Helper()
	Errorf(format string, args ...any)
}) func() {
	before := Snapshot()
	return func() {
		t.Helper()
		var news []string
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			if news = Snapshot().Since(before); len(news) == 0 {
				return
			}
			if time.Now().After(deadline) {
				break
			}
		}
		t.Errorf("left behind:\n%s", strings.Join(news, "\n"))
	}
}

// wakePoller makes the runtime open the descriptors of its network poller,
// which it does at the first use and keeps.
func wakePoller() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

func openFDs() map[int]string {
	fds := map[int]string{}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return fds
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd == int(dir.Fd()) {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + name); err == nil {
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

func children() map[int]string {
	all := map[int]string{}
	pids, err := processes()
	if err != nil {
		return all
	}
	for _, pid := range pids {
		// "123 (its name) S 1 ...": the name may hold anything, the parent comes after it.
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		head, rest, ok := strings.Cut(string(b), "(")
		end := strings.LastIndexByte(rest, ')')
		if !ok || head == "" || end < 0 {
			continue
		}
		f := strings.Fields(rest[end+1:])
		if len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			all[pid] = rest[:end] + " (" + f[0] + ")"
		}
	}
	return all
}
