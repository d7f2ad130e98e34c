package account

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Steal is time in which a virtual machine's CPUs had something to do, but its host ran something
// else on them: steal in /proc/stat, see proc(5). Take it twice, and [Steal.Minus] is what it was
// in between. On hardware of its own a machine has none. It is counted in ticks of 10 ms, so of
// less than a second it says little.
type Steal struct{ stolen, total int64 } // in ticks, of all CPUs

// Stolen returns it as it is now.
func Stolen() (Steal, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Steal{}, fmt.Errorf("stolen CPU time: %w", err)
	}
	return parseStat(string(text))
}

// Minus and Plus make differences and sums.
func (s Steal) Minus(t Steal) Steal { return Steal{s.stolen - t.stolen, s.total - t.total} }

// Plus: see Minus.
func (s Steal) Plus(t Steal) Steal { return Steal{s.stolen + t.stolen, s.total + t.total} }

// Share is the part of the CPUs' time that was stolen, 0 to 1.
func (s Steal) Share() float64 { return float64(s.stolen) / float64(max(s.total, 1)) }

// parseStat reads the first line, "cpu  user nice system idle iowait irq softirq steal guest ...":
// guest time is in user already.
func parseStat(text string) (s Steal, err error) {
	const steal, all = 7, 8
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) <= all || fields[0] != "cpu" {
		return s, fmt.Errorf("/proc/stat: %q: want the CPUs' times", line)
	}
	for i, field := range fields[1 : all+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return s, fmt.Errorf("/proc/stat: %w", err)
		}
		s.total += ticks
		if i == steal {
			s.stolen = ticks
		}
	}
	return s, nil
}
