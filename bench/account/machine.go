package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuacct is where the first version of control groups counts CPU time; its root has
// that of every task that there was, those that have ended too.
const cpuacct = "/sys/fs/cgroup/cpuacct"

// Machine returns the CPU time that all processes and kernel threads of the machine
// have used so far, in nanoseconds. What the kernel does in interrupts and for packets
// (softirq) is in it, as time of whoever was running then; what it does on an idle
// CPU is not. Take it twice, and the difference is what was used in between.
//
// It is cpuacct.usage of the root control group where that can be read. Elsewhere it
// is the sum over all threads in /proc (see [Process]), which takes milliseconds and
// loses what threads have used that end in between. The CPU time in the root of the
// second version of control groups is no help: it is counted in ticks.
func Machine() (time.Duration, error) {
	// Only the root has a release agent: elsewhere it would be one group's time.
	if _, err := os.Stat(cpuacct + "/release_agent"); err == nil {
		if text, err := os.ReadFile(cpuacct + "/cpuacct.usage"); err == nil {
			if used, err := parse(string(text)); err == nil {
				return used, nil
			}
		}
	}
	sum := time.Duration(0)
	err := eachProcess(func(pid int) error {
		used, err := Process(pid)
		sum += used
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("CPU time of the machine: %w", err)
	}
	return sum, nil
}

// Kernel returns the CPU time that the kernel's own threads have used so far; like
// that of [Process], it has no rounding to ticks. It is 0 in a PID namespace that
// they are not in.
func Kernel() (time.Duration, error) {
	const kthreadd = 2 // the parent of all kernel threads
	sum := time.Duration(0)
	err := eachProcess(func(pid int) error {
		parent, err := parentOf(pid)
		if err != nil || parent != kthreadd {
			return err
		}
		used, err := Process(pid)
		sum += used
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("CPU time of the kernel's threads: %w", err)
	}
	return sum, nil
}

// eachProcess calls f for every process; one that has ended meanwhile is no error.
func eachProcess(f func(pid int) error) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if err := f(pid); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// parentOf reads "123 (its name) S 1 ...": the name may hold anything, the parent
// comes after it.
func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat: %q: want a parent", pid, text)
	}
	return strconv.Atoi(fields[1])
}
