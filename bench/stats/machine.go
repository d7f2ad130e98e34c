package stats

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
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

// ThisMachine describes this machine, as far as the kernel reports it.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go"), CPU: runtime.GOARCH}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = release(unix.ByteSliceToString(name.Release[:]))
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return m
	}
	if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 && cpus[0].ModelName != "" {
		m.CPU = cpus[0].ModelName
	}
	if memory, err := fs.Meminfo(); err == nil && memory.MemTotalBytes != nil {
		m.Memory = int64(*memory.MemTotalBytes)
	}
	if load, err := fs.LoadAvg(); err == nil {
		m.LoadAvg = load.Load1
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
