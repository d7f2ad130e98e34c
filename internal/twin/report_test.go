package twin

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// counts are the figures of a run.
type counts struct {
	mu           sync.Mutex
	scripts      int
	connections  int
	bytes        int64 // received through the relay, and compared
	direct       int64 // through the router
	combinations map[string]int
	kinds        map[string]int
	faults       map[string]int
	allowed      *tally
	explained    int
	noise        int
	batches      int
}

// tally counts by name.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) note(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what]++
}

func newCounts() *counts {
	return &counts{combinations: map[string]int{}, kinds: map[string]int{}, faults: map[string]int{}, allowed: &tally{n: map[string]int{}}}
}

// add counts a batch.
func (c *counts) add(set setting, scripts []script, p played) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches++
	for i, s := range scripts {
		c.scripts++
		c.combinations[set.combination(s.V6)]++
		c.kinds[s.Kind]++
		for k, o := range p.relay[i] {
			c.connections++
			c.bytes += o.Client.Received + o.Server.Received
			c.direct += p.direct[i][k].Client.Received + p.direct[i][k].Server.Received
		}
	}
}

func (c *counts) fault(f fault) {
	if f != none {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.faults[string(f)]++
	}
}

func (c *counts) explain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.explained++
}

func (c *counts) late(scripts int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noise += max(scripts, 0)
}

// report is the table of results, in Markdown.
func (c *counts) report(seed uint64, took time.Duration, failures int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	b.WriteString("| what | figure |\n| --- | --- |\n")
	row := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", what, fmt.Sprintf(format, args...))
	}
	least := c.scripts
	for _, n := range c.combinations {
		least = min(least, n)
	}
	row("duration", "%v", took.Round(time.Second))
	row("seed", "%d", seed)
	row("kernel", "%s", kernel())
	row("scripts, each played with a router and with the relay", "%d, in %d batches", c.scripts, c.batches)
	row("by combination", "at least %d; %s", least, list(c.combinations))
	row("by kind", "%s", list(c.kinds))
	row("connections through the relay", "%d", c.connections)
	row("bytes received and compared", "%.2f GiB through the relay, %.2f GiB through the router", float64(c.bytes)/(1<<30), float64(c.direct)/(1<<30))
	row("faults", "%s", list(c.faults))
	row("ends with a difference that the table allows", "%s", list(c.allowed.n))
	row("scripts whose outcome a router gave at another try", "%d", c.explained)
	row("scripts that waited too long once, and not again", "%d", c.noise)
	row("scripts with an unexplained difference", "%d", failures)
	return b.String()
}

func list(m map[string]int) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s: %d", key, m[key]))
	}
	return strings.Join(parts, "; ")
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// publish writes the table where it was asked for.
func publish(table string) error {
	fmt.Fprintf(os.Stderr, "\n%s\n", table)
	if file := os.Getenv("TPRELAY_TWIN_REPORT"); file != "" {
		return os.WriteFile(file, []byte(table), 0o644)
	}
	return nil
}
