package bench

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tprelay/tprelay/bench/svg"
)

// wide is the spread from which on it is shown, as a part of the median.
const wide = 0.05

// Markdown gives everything as text: the machine and the settings, a table for each
// point, and what has to be said of them. It reads well in a terminal, too.
func (r *Results) Markdown() string {
	var b strings.Builder
	for _, line := range r.heading() {
		fmt.Fprintln(&b, line)
	}
	scenario := ""
	for _, p := range r.points() {
		if p.Scenario != scenario {
			scenario = p.Scenario
			for _, s := range Scenarios() {
				if s.Name == scenario {
					fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.Title, s.How)
				}
			}
		}
		fmt.Fprintf(&b, "\n%s, %s:\n\n", p.Name, p.Title)
		writeRows(&b, r.rows(p))
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		for _, line := range lines {
			fmt.Fprintln(&b, "- "+line)
		}
	}
	section("Warnings", r.warnings())
	section("The same relay twice", r.selfCheck())
	var verdicts []string
	for _, v := range r.Verdicts() {
		verdicts = append(verdicts, v.String())
	}
	section("Targets", verdicts)
	return b.String()
}

// heading says what was measured, on what, and how to do it again.
func (r *Results) heading() []string {
	m, s := r.Machine, r.Settings
	congestion := ""
	if s.Congestion != "" {
		congestion = "; congestion control: " + s.Congestion
	}
	lines := []string{
		fmt.Sprintf("%s, %s, %.1f GiB, Linux %s, Go %s; %s", m.CPU, plural(m.Cores, "core"), float64(m.Memory)/(1<<30), m.Kernel, m.Go, s.Began.Format(time.DateOnly)),
		"",
		fmt.Sprintf("h1 (clients) - h2 (relay) - h3 (servers) in network namespaces, all on this machine; %s, windows of %g s after %g s; ends: %s%s",
			s.HowOften(), s.Seconds, s.WarmUp, s.With, congestion),
		"",
		"    " + s.Command,
		"",
	}
	for _, relay := range r.Relays {
		lines = append(lines, fmt.Sprintf("- %s: %s (%s)", relay.Name, relay.Title, relay.Way))
	}
	lines = append(lines, "")
	text := "Each figure is the median of the rounds"
	if s.Baseline != "" {
		text += ", in brackets that of its ratios to " + s.Baseline + " in the same round"
	}
	lines = append(lines, text+"; ± is half the range, where it is more than 5 %.")
	for _, n := range r.Notes {
		lines = append(lines, "", "Note: "+n+".")
	}
	return lines
}

// rows is the table of a point.
func (r *Results) rows(p Point) [][]string {
	head := []string{"relay"}
	for _, m := range p.Metrics {
		head = append(head, m.Title)
	}
	rows := [][]string{head}
	for _, relay := range r.Relays {
		if !r.has(p.Name, relay.Name) {
			continue
		}
		row := []string{relay.Name}
		for _, m := range p.Metrics {
			row = append(row, r.show(p, relay.Name, m))
		}
		if failed := r.failed(p, relay.Name); failed != "" {
			row = append([]string{relay.Name, "failed: " + failed}, make([]string, len(p.Metrics)-1)...)
		}
		rows = append(rows, row)
	}
	return rows
}

// show is how a figure is shown in a table.
func (r *Results) show(p Point, relay string, m Metric) string {
	c := r.Cell(p, relay, m)
	if m.Count && c.Rounds > 0 {
		return svg.Thousands(fmt.Sprintf("%.0f", c.Median))
	}
	return c.String()
}

// failed says why there is no figure of the relay at the point at all, or "".
func (r *Results) failed(p Point, relay string) (reason string) {
	for _, run := range r.Runs {
		if run.Point != p.Name || run.Relay != relay {
			continue
		}
		if run.Error == "" {
			return ""
		}
		reason = run.Error
	}
	return reason
}

// String is how a cell is shown: 65,390 (1.07) ±6 %.
func (c Cell) String() string {
	if c.Rounds == 0 {
		return "-"
	}
	text := number(c.Median)
	if c.Ratio != 0 {
		text += fmt.Sprintf(" (%.2f)", c.Ratio)
	}
	if c.Spread() > wide {
		text += fmt.Sprintf(" ±%.0f %%", 100*c.Spread())
	}
	return text
}

// busy warns of other programs that used the machine meanwhile: run by run, or in one
// line if there are many.
func (r *Results) busy() (lines []string) {
	const much, many = 0.05, 6
	most := 0.0
	for _, run := range r.Runs {
		if run.Others > much {
			most = max(most, run.Others)
			lines = append(lines, fmt.Sprintf("%s, %s, round %d: other programs used %.0f %% of the machine", run.Point, run.Relay, run.Round, 100*run.Others))
		}
	}
	if len(lines) > many {
		return []string{fmt.Sprintf("other programs used more than %.0f %% of the machine in %d of %s, at most %.0f %%: nothing else should run meanwhile",
			100*much, len(lines), plural(len(r.Runs), "run"), 100*most)}
	}
	return lines
}

// warnings are those of the machine and of the runs.
func (r *Results) warnings() (lines []string) {
	if note := r.Machine.note(); note != "" {
		lines = append(lines, note)
	}
	lines = append(lines, r.busy()...)
	lines = append(lines, r.stolen()...)
	for _, run := range r.Runs {
		for _, w := range run.Warnings {
			lines = append(lines, fmt.Sprintf("%s, %s, round %d: %s", run.Point, run.Relay, run.Round, w))
		}
		if p, ok := FindPoint(run.Point); ok && run.Error != "" && r.failed(p, run.Relay) == "" {
			lines = append(lines, fmt.Sprintf("%s, %s, round %d failed, and is left out: %s", run.Point, run.Relay, run.Round, run.Error))
		}
	}
	return lines
}

// selfCheck says of relays that are there twice whether the two differ by no more
// than each by itself.
func (r *Results) selfCheck() (lines []string) {
	for i, relay := range r.Relays {
		for _, twin := range r.Relays[i+1:] {
			if twin.Peer != relay.Peer {
				continue
			}
			for _, p := range r.points() {
				for _, m := range p.Metrics {
					a, b := r.cell(p.Name, relay.Name, m), r.cell(p.Name, twin.Name, m)
					if m.Count || a.Rounds == 0 || b.Rounds == 0 || a.Median == 0 {
						continue
					}
					verdict := "the ranges are apart"
					if a.Min <= b.Max && b.Min <= a.Max {
						verdict = "the ranges overlap"
					}
					lines = append(lines, fmt.Sprintf("%s, %s: %s over %s is %.3f, each ±%.0f %% and ±%.0f %% by itself; %s",
						p.Name, m.Title, twin.Name, relay.Name, b.Median/a.Median, 100*b.Spread(), 100*a.Spread(), verdict))
				}
			}
		}
	}
	return lines
}

// writeRows writes a table in Markdown, in columns.
func writeRows(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			// A long error is not to make all columns wide.
			if n := utf8.RuneCountInString(cell); !strings.HasPrefix(cell, "failed: ") {
				width[i] = max(width[i], n, 3)
			}
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", max(width[i]-utf8.RuneCountInString(cell), 0))
			if i == 0 {
				fmt.Fprintf(b, "| %s%s |", cell, pad)
			} else {
				fmt.Fprintf(b, " %s%s |", pad, strings.ReplaceAll(cell, "|", "\\|"))
			}
		}
		b.WriteByte('\n')
		if n == 0 {
			for i := range row {
				switch i {
				case 0:
					fmt.Fprintf(b, "| %s |", strings.Repeat("-", width[i]))
				default:
					fmt.Fprintf(b, " %s: |", strings.Repeat("-", width[i]-1))
				}
			}
			b.WriteByte('\n')
		}
	}
}

// oneLine is an error as one line, for a cell.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
