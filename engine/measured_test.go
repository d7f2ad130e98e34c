package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// measuredRelay is a relay in a process of its own, whose memory, processor time and
// descriptors can be seen from outside.
type measuredRelay struct {
	*child
	t       *testing.T
	address string
}

// measuredOptions are the engine.Options that a relay in its own process is given.
type measuredOptions struct {
	Upstream    string
	MemoryLimit int64
	NoSplice    bool
}

// measuredStats is the part of engine.Stats that comes through JSON.
type measuredStats struct {
	Opened, Starved, Waits                                  uint64
	Active, Pending, Memory, PipesInUse, PipesIdle, Buffers int64
	Ended                                                   map[string]uint64
}

// startMeasured starts a relay in forward mode on loopback.
func startMeasured(t *testing.T, o measuredOptions) *measuredRelay {
	t.Helper()
	c, err := startChild("relay")
	if err != nil {
		t.Fatal(err)
	}
	c.stopAtEnd(t)
	r := &measuredRelay{child: c, t: t}
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if r.address, err = c.ask(string(options)); err != nil {
		t.Fatal(err)
	}
	return r
}

// serveMeasured is the other process.
func serveMeasured(commands *bufio.Scanner) {
	var o measuredOptions
	commands.Scan()
	if err := json.Unmarshal(commands.Bytes(), &o); err != nil {
		fmt.Println(err)
		return
	}
	e, err := engine.New(engine.Options{
		Listeners: []engine.Listener{{
			Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: netip.MustParseAddrPort(o.Upstream),
		}},
		MemoryLimit: o.MemoryLimit,
		NoSplice:    o.NoSplice,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// As Options.MemoryLimit advises, but with 1 MiB on top, because what Go has already is known
	// here. With less than it needs, the collector would run all the time.
	var base runtime.MemStats
	runtime.ReadMemStats(&base)
	debug.SetMemoryLimit(int64(base.Sys-base.HeapReleased) + o.MemoryLimit*105/100 + 1<<20)
	done := make(chan error, 1)
	go func() { done <- e.Run(context.Background()) }()
	fmt.Println(e.Addrs()[0])
	for commands.Scan() {
		stats, err := json.Marshal(e.Stats())
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(string(stats))
	}
	e.Close()
	if err := <-done; err != nil {
		fmt.Println(err)
	}
}

func (r *measuredRelay) stats() (s measuredStats) {
	r.t.Helper()
	line, err := r.ask("stats")
	if err == nil {
		err = json.Unmarshal([]byte(line), &s)
	}
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	return s
}

// until waits for what the relay's Stats must show.
func (r *measuredRelay) until(what string, ok func(measuredStats) bool) measuredStats {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s := r.stats(); ok(s) {
			return s
		}
	}
	r.t.Fatalf("never came: %s: %+v", what, r.stats())
	return measuredStats{}
}

// status reads a line of /proc/PID/status, in bytes where that is in kB.
func (r *measuredRelay) status(name string) int64 {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == name+":" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			if len(fields) > 2 {
				n <<= 10
			}
			return n
		}
	}
	r.t.Fatalf("no %s in /proc/PID/status", name)
	return 0
}

// descriptors is how many are open.
func (r *measuredRelay) descriptors() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	return len(entries)
}

// processorTime is what all its threads have used.
func (r *measuredRelay) processorTime() (used time.Duration) {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", r.cmd.Process.Pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(dir + "/" + task.Name() + "/schedstat")
		if err != nil {
			continue // the thread has ended
		}
		var ns int64
		fmt.Sscan(string(text), &ns)
		used += time.Duration(ns)
	}
	return used
}
