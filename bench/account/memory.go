package account

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Resident returns the bytes of memory that the process occupies now, shared pages
// included: Rss of /proc/PID/smaps_rollup, which is counted page by page. (VmRSS of
// /proc/PID/status may be off by some hundred KiB, as each CPU keeps a part of
// the count to itself.) The error wraps os.ErrNotExist if there is no such process.
func Resident(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Rss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("memory of process %d: %w", pid, err)
			}
			return kib << 10, nil
		}
	}
	// A process that has just ended has no memory, but a file that is empty.
	return 0, fmt.Errorf("memory of process %d: it has ended: %w", pid, os.ErrNotExist)
}

// Descriptors returns how many the process has open. The error wraps os.ErrNotExist
// if there is no such process.
func Descriptors(pid int) (int, error) {
	open, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return 0, fmt.Errorf("descriptors of process %d: %w", pid, err)
	}
	defer open.Close()
	names, err := open.Readdirnames(-1)
	if err != nil {
		return 0, fmt.Errorf("descriptors of process %d: %w", pid, err)
	}
	return len(names), nil
}

// DescriptorLimit returns how many the process may have open at most, its soft limit
// at this moment.
func DescriptorLimit(pid int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0, fmt.Errorf("limit of descriptors of process %d: %w", pid, err)
	}
	return int(min(limit.Cur, math.MaxInt32)), nil
}
