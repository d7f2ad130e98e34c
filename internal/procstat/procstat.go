// Package procstat reads from the kernel what processes and the machine have used: CPU time, memory
// and descriptors.
package procstat

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// CPU returns the CPU time that the process has used so far: the sum over its live threads of the
// first field of /proc/PID/task/TID/schedstat. (/proc/PID/schedstat is its first thread's alone.)
// Take it twice, and the difference is what was used in between.
//
// It is in nanoseconds and not rounded to ticks, as the times of /proc/PID/stat are; a thread that
// is running may lack what it has used since the last tick. Threads that end in between take their
// past with them: of a program that ends threads all the time the difference is too small, or
// negative.
//
// The error wraps os.ErrNotExist if there is no such process.
func CPU(pid int) (time.Duration, error) {
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	var sum time.Duration
	found := false
	for _, thread := range threads {
		used, err := thread.Schedstat()
		if gone(err) {
			continue // it has ended since
		}
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: thread %d: %w", pid, thread.PID, err)
		}
		sum, found = sum+time.Duration(used.RunningNanoseconds), true
	}
	if !found {
		return 0, fmt.Errorf("CPU time of process %d: it has ended: %w", pid, os.ErrNotExist)
	}
	return sum, nil
}

// Resident returns the bytes of memory that the process occupies now, shared pages included: Rss of
// /proc/PID/smaps_rollup, which is counted page by page. (VmRSS of /proc/PID/status may be off by
// some hundred KiB, as each CPU keeps a part of the count to itself.) The error wraps
// os.ErrNotExist if there is no such process.
func Resident(pid int) (int64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	memory, err := p.ProcSMapsRollup()
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	if memory.Rss == 0 { // the file of a process that has just ended is empty
		return 0, fmt.Errorf("memory of process %d: it has ended: %w", pid, os.ErrNotExist)
	}
	return int64(memory.Rss), nil
}

// Descriptors returns how many the process has open. The error wraps os.ErrNotExist if there is no
// such process.
func Descriptors(pid int) (n int, err error) {
	p, err := procfs.NewProc(pid)
	if err == nil {
		n, err = p.FileDescriptorsLen()
	}
	if err != nil {
		return 0, fmt.Errorf("descriptors of process %d: %w", pid, err)
	}
	return n, nil
}

// DescriptorLimit returns how many the process may have open at most, its soft limit now.
func DescriptorLimit(pid int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0, fmt.Errorf("limit of descriptors of process %d: %w", pid, err)
	}
	return int(min(limit.Cur, math.MaxInt32)), nil
}

// Steal is time in which the CPUs of a virtual machine had work, but its host ran something else on
// them: see proc(5), /proc/stat. Take it twice, and [Steal.Minus] gives the time in between. It is
// counted in ticks of 10 ms, so of less than a second it says little.
type Steal struct{ stolen, total float64 } // in seconds, of all CPUs

// Stolen returns it as it is now.
func Stolen() (Steal, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Steal{}, fmt.Errorf("stolen CPU time: %w", err)
	}
	stat, err := fs.Stat()
	if err != nil {
		return Steal{}, fmt.Errorf("stolen CPU time: %w", err)
	}
	c := stat.CPUTotal
	// Guest time is in User already.
	return Steal{c.Steal, c.User + c.Nice + c.System + c.Idle + c.Iowait + c.IRQ + c.SoftIRQ + c.Steal}, nil
}

// Minus and Plus make differences and sums.
func (s Steal) Minus(t Steal) Steal { return Steal{s.stolen - t.stolen, s.total - t.total} }

// Plus adds what was stolen at another time.
func (s Steal) Plus(t Steal) Steal { return Steal{s.stolen + t.stolen, s.total + t.total} }

// Share is the part of the CPUs' time that was stolen, 0 to 1.
func (s Steal) Share() float64 {
	if s.total <= 0 {
		return 0
	}
	return s.stolen / s.total
}

// gone says whether an error means that the process or thread has ended.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) }
