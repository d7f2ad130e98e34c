package bottleneck

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/netlab"
)

// Calls are numbers of system calls, by name.
type Calls map[string]int

var straceRow = regexp.MustCompile(`(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z]\w*)$`)

// parseStrace reads the summary of strace -c.
func parseStrace(text string) Calls {
	calls := Calls{}
	for _, row := range straceRow.FindAllStringSubmatch(text, -1) {
		if row[2] != "total" {
			calls[row[2]], _ = strconv.Atoi(row[1])
		}
	}
	return calls
}

// countCalls counts the system calls of processes for so long, by strace.
func countCalls(ctx context.Context, host *netlab.Host, pids []int, length time.Duration) (Calls, error) {
	args := []string{"-c", "-f", "-q"}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := host.Command(ctx, "strace", args...)
	var summary bytes.Buffer
	cmd.Stderr = &summary
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sleep(ctx, length)
	if err := cmd.Signal(syscall.SIGINT); err != nil {
		return nil, err
	}
	<-cmd.Done() // its exit status is that of the signal
	if calls := parseStrace(summary.String()); len(calls) > 0 || strings.TrimSpace(summary.String()) == "" {
		return calls, nil
	}
	return nil, fmt.Errorf("strace: %s", strings.TrimSpace(summary.String()))
}

// kinds are what calls are for: to wait, to change what is waited for, to move bytes, to
// look at a socket or set it, and all others.
func (c Calls) kinds() [5]int {
	kind := map[string]int{"epoll_ctl": 1, "getsockopt": 3, "setsockopt": 3}
	for _, name := range strings.Fields("epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6") {
		kind[name] = 0
	}
	for _, name := range strings.Fields("splice read write recvfrom sendto recvmsg sendmsg readv writev tee") {
		kind[name] = 2
	}
	var numbers [5]int
	for name, n := range c {
		k, known := kind[name]
		if !known {
			k = 4
		}
		numbers[k] += n
	}
	return numbers
}

// Counted are the system calls of a relay whose receiver stops, in three phases.
type Counted struct {
	Relay    string   `json:"relay"`
	Title    string   `json:"title"`
	Starting Calls    `json:"starting"`
	Flowing  Calls    `json:"flowing"`
	Stopped  Calls    `json:"stopped"`
	Growth   int64    `json:"growth_bytes"` // while the receiver has stopped
	Record   *Record  `json:"-"`
	packets  []packet // of tprelay
}

// The phases of such a transfer. The first seconds after the receiver has stopped are left
// out, and spare is time for strace to begin and end.
const (
	starting = 3 * time.Second
	flowing  = 5 * time.Second
	settled  = 2 * time.Second
	stopped  = 5 * time.Second
	resumed  = 3 * time.Second
	spare    = 500 * time.Millisecond
)

// callTable is the table of calls by kind, in Markdown.
func callTable(counted []*Counted) string {
	var b strings.Builder
	b.WriteString("| relay | while | waits | epoll_ctl | reads and writes | socket options | its runtime | grew by |\n")
	b.WriteString("| --- | --- | --: | --: | --: | --: | --: | --: |\n")
	for _, c := range counted {
		for _, phase := range []struct {
			title, growth string
			calls         Calls
		}{
			{fmt.Sprintf("the first %g s", (starting - spare).Seconds()), "", c.Starting},
			{fmt.Sprintf("then, %g s", (flowing - spare).Seconds()), "", c.Flowing},
			{fmt.Sprintf("stopped, %g s", (stopped - spare).Seconds()), fmt.Sprintf("%.1f MiB", float64(c.Growth)/mib), c.Stopped},
		} {
			fmt.Fprintf(&b, "| %s | %s |", c.Title, phase.title)
			for _, n := range phase.calls.kinds() {
				fmt.Fprintf(&b, " %s |", units.Thousands(strconv.Itoa(n)))
			}
			fmt.Fprintf(&b, " %s |\n", phase.growth)
		}
	}
	b.WriteString("\n" + wrap(fmt.Sprintf("By strace -c -f. \"Stopped\": the receiver reads nothing; the first %g s of that are left out. \"Its runtime\" is what neither "+
		"waits nor moves bytes: the Go scheduler's futex and nanosleep, HAProxy's clock.", settled.Seconds())))
	return b.String()
}
