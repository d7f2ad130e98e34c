package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memory is what a process occupies, in bytes.
type memory struct {
	rss  int64 // now
	peak int64 // of rss, since the program was started
	anon int64 // the part of rss that is not backed by files
}

// readMemory reads it from the kernel.
func readMemory(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	m, err := parseMemory(string(text))
	if err != nil {
		return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return m, nil
}

// parseMemory reads lines like "VmHWM:	   10240 kB". A process that has just
// ended has none of them.
func parseMemory(status string) (m memory, err error) {
	wanted := map[string]*int64{"VmRSS": &m.rss, "VmHWM": &m.peak, "RssAnon": &m.anon}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		to, ok := wanted[name]
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		*to = kib << 10
		delete(wanted, name)
	}
	for name := range wanted {
		return m, fmt.Errorf("no %s: it has ended", name)
	}
	return m, nil
}
