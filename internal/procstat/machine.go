package procstat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Machine returns the CPU time that all processes and kernel threads of the machine have used so
// far, in nanoseconds. Interrupts and packets (softirq) are in it, as time of what ran when they
// came, except on an idle CPU. Take it twice, and the difference is what was used in between.
//
// It comes from control groups where they cover the whole machine, as these also count processes
// that have ended. Elsewhere, in containers, it is the sum over all processes in /proc, see [CPU].
func Machine() (time.Duration, error) {
	if used, err := unified("/sys/fs/cgroup"); err == nil {
		return used, nil
	}
	if used, err := cpuacct("/sys/fs/cgroup/cpuacct"); err == nil {
		return used, nil
	}
	processes, err := procfs.AllProcs()
	if err != nil {
		return 0, fmt.Errorf("CPU time of the machine: %w", err)
	}
	var sum time.Duration
	for _, p := range processes {
		used, err := CPU(p.PID)
		if err != nil && !gone(err) {
			return 0, fmt.Errorf("CPU time of the machine: %w", err)
		}
		sum += used
	}
	return sum, nil
}

// errNotRoot means that a control group is not the machine's root.
var errNotRoot = errors.New("not the root control group")

// unified sums up version 2 of control groups: the groups below the root, and the processes in the
// root itself, which are the kernel's threads. The root's own cpu.stat is no help: it is sampled
// once per tick, while that of other groups is exact.
func unified(root string) (sum time.Duration, err error) {
	// Only the real root has no cgroup.events.
	if _, err := os.Stat(filepath.Join(root, "cgroup.events")); err == nil {
		return 0, errNotRoot
	}
	pids, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	if sum, err = sumOf(string(pids)); err != nil {
		return 0, err
	}
	groups, err := filepath.Glob(filepath.Join(root, "*", "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for _, group := range groups {
		text, err := os.ReadFile(group)
		if gone(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "usage_usec ")
		value, _, _ := strings.Cut(rest, "\n")
		us, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", group, err)
		}
		sum += time.Duration(us) * time.Microsecond
	}
	return sum, nil
}

// cpuacct reads version 1 of control groups.
func cpuacct(root string) (time.Duration, error) {
	// Only the root has a release agent.
	if _, err := os.Stat(filepath.Join(root, "release_agent")); err != nil {
		return 0, errNotRoot
	}
	text, err := os.ReadFile(filepath.Join(root, "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Duration(ns), err
}

// Kernel returns the CPU time that the kernel's own threads have used so far. It is 0 in a PID
// namespace without them.
func Kernel() (time.Duration, error) {
	const kthreadd = "/proc/2" // the parent of all other kernel threads
	if name, err := os.ReadFile(kthreadd + "/comm"); err != nil || string(name) != "kthreadd\n" {
		return 0, nil
	}
	children, err := os.ReadFile(kthreadd + "/task/2/children")
	if err != nil {
		return 0, fmt.Errorf("CPU time of the kernel's threads: %w", err)
	}
	return sumOf("2 " + string(children))
}

// sumOf is the CPU time of these processes; one that has ended counts as 0.
func sumOf(pids string) (sum time.Duration, err error) {
	for _, field := range strings.Fields(pids) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("process %q: %w", field, err)
		}
		used, err := CPU(pid)
		if err != nil && !gone(err) {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
