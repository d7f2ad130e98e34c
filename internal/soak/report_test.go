package soak

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// totals are the sums of what relays said of themselves, over all lives.
type totals struct {
	accepted, opened          uint64
	ended, dialErrors         map[string]uint64
	spliced, buffered         uint64
	pauses, starved, misses   uint64
	acceptErrors, acceptPause uint64
	stale, refused            uint64
	peak                      int // KiB
	checks                    int // times that a relay at rest was found empty
}

// add adds what a life said last.
func (t *totals) add(s stats) {
	t.accepted += s.Accepted
	t.opened += s.Opened
	t.spliced += s.UpstreamSplice + s.DownstreamSplice
	t.buffered += s.UpstreamBuffer + s.DownstreamBuffer
	t.pauses += s.Pauses
	t.starved += s.Starved
	t.misses += s.PipeMisses
	t.acceptErrors += s.AcceptErrors
	t.acceptPause += s.AcceptPauses
	t.stale += s.StaleEvents
	t.refused += s.SpliceRefused
	if t.ended == nil {
		t.ended, t.dialErrors = map[string]uint64{}, map[string]uint64{}
	}
	for reason, n := range s.Ended {
		t.ended[reason] += n
	}
	for errno, n := range s.DialErrors {
		t.dialErrors[errno] += n
	}
}

// progress is one line of how it goes.
func (w *world) progress(began time.Time) string {
	ss := w.streams
	ss.mu.Lock()
	defer ss.mu.Unlock()
	t := &ss.tally
	return fmt.Sprintf("soak: %v: relay %v; %d streams, %d ends under way; %d ends complete, %d reset by an end, %d cut by a fault; %s up, %s down; %d faults; %d failures",
		time.Since(began).Round(time.Second), w.life.Load(), sum(t.begun), len(ss.ends), t.complete, t.planned, sum(t.cut),
		bytes(t.up), bytes(t.down), w.ledger.total(), w.failed())
}

func (l *ledger) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sum(l.counts)
}

// report is the table of results, in Markdown.
func (w *world) report(took time.Duration) string {
	t := &w.streams.tally
	var b strings.Builder
	b.WriteString("| what | figure |\n| --- | --- |\n")
	row := func(what string, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", what, fmt.Sprintf(format, args...))
	}
	race := ""
	if w.config.race {
		race = ", relay built with the race detector"
	}
	row("duration", "%v%s", took.Round(time.Second), race)
	row("seed", "%d", w.config.seed)
	row("kernel", "%s", kernel())
	row("lives of the relay", "%d", w.lives)
	row("streams begun", "%d (%s)", sum(t.begun), list(t.begun))
	row("pairs opened", "%d of %d accepted", w.totals.opened, w.totals.accepted)
	row("bytes received and compared", "%s upstream, %s downstream", bytes(t.up), bytes(t.down))
	row("bytes by path", "%s spliced, %s buffered", bytes(int64(w.totals.spliced)), bytes(int64(w.totals.buffered)))
	row("what interceptors did", "%d labels, %d replacements", t.labels, t.replaced)
	row("pairs ended, by reason", "%s", list(w.totals.ended))
	row("dial errors", "%s", list(w.totals.dialErrors))
	row("pauses", "%d; %d times for want of memory, %d times no pipe", w.totals.pauses, w.totals.starved, w.totals.misses)
	row("failed accepts", "%d; listeners paused %d times", w.totals.acceptErrors, w.totals.acceptPause)
	row("largest resident set of a relay", "%d MiB", w.totals.peak>>10)
	row("faults injected", "%d (%s)", w.ledger.total(), list(w.ledger.counts))
	row("ends of streams checked", "%d complete, %d reset by plan, %d cut by a fault (%s)", t.complete, t.planned, sum(t.cut), list(t.cut))
	row("not begun: the client's port was taken", "%d", t.notBegun)
	row("relays found empty at rest", "%d", w.totals.checks)
	row("bytes lost", "%d", t.lost)
	row("streams cut short with a clean end", "%d", t.truncated)
	row("ends that failed in any way", "%d", t.failed)
	row("failures, leaks among them", "%d", w.failed())
	return b.String()
}

func sum[K comparable, N int | uint64](m map[K]N) (total N) {
	for _, n := range m {
		total += n
	}
	return total
}

func list[N int | uint64](m map[string]N) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, m[key]))
	}
	return strings.Join(parts, ", ")
}

func bytes(n int64) string {
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// publish writes the table where it was asked for.
func (w *world) publish(table string) error {
	fmt.Fprintf(os.Stderr, "\n%s\n", table)
	if w.config.report == "" {
		return nil
	}
	return os.WriteFile(w.config.report, []byte(table), 0o644)
}
