package stats

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/bench/units"
)

// Machine is what was measured on.
type Machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Memory  int64   `json:"memory_bytes"`
	Kernel  string  `json:"kernel"`
	Go      string  `json:"go"`
	LoadAvg float64 `json:"load_before"` // mean of the minute before
}

// ThisMachine describes this one, as far as the kernel tells.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go"), CPU: runtime.GOARCH}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = release(unix.ByteSliceToString(name.Release[:]))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		m.LoadAvg, _ = strconv.ParseFloat(first, 64)
	}
	return m
}

// release is a kernel's version without what its builder added: 6.1.0 of 6.1.0-18-amd64.
func release(text string) string {
	version, _, _ := strings.Cut(text, "-")
	return version
}

// note warns of a machine that was busy before anything was measured.
func (m Machine) note() string {
	if m.LoadAvg < 0.5*float64(m.Cores) {
		return ""
	}
	return "the machine was busy before: load " + strconv.FormatFloat(m.LoadAvg, 'f', 2, 64) + " on " + units.Plural(m.Cores, "core")
}
