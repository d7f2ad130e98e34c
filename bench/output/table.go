// Package output writes the results of a comparison: as tables in Markdown, as JSON, in the format
// of benchstat, and as a page with plots.
package output

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/units"
)

// Markdown gives everything as text: the machine and the settings, a table for each workload, and
// warnings. It also reads well in a terminal.
func Markdown(r *stats.Results) string {
	var b strings.Builder
	for _, line := range heading(r) {
		fmt.Fprintln(&b, line)
	}
	for _, line := range Headlines(r) {
		fmt.Fprintln(&b, "- "+line)
	}
	last := ""
	for _, w := range r.Measured() {
		if about := w.Scenario.About(); about.Name != last {
			last = about.Name
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", about.Title, about.How)
		}
		fmt.Fprintf(&b, "\n%s:\n\n", caption(w))
		writeRows(&b, rows(r, w))
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
	section("Warnings", r.Warnings())
	section("The same relay twice", r.Twins())
	section("Targets", r.Verdicts)
	return b.String()
}

// caption is a workload in words: rr-100 (TCP_RR), 100 concurrent connections, closed loop.
func caption(w scenario.Workload) string {
	name := w.Name
	if w.Alias != "" {
		name += " (" + w.Alias + ")"
	}
	return fmt.Sprintf("%s, %s, %s", name, w.Title, w.Scenario.About().Loop)
}

// heading says what was measured, on what, and how to do it again.
func heading(r *stats.Results) []string {
	m, s := r.Machine, r.Settings
	congestion := ""
	if s.Congestion != "" {
		congestion = "; congestion control: " + s.Congestion
	}
	lines := []string{
		fmt.Sprintf("%s, %s, %.1f GiB, Linux %s, Go %s; %s", m.CPU, units.Plural(m.Cores, "core"), float64(m.Memory)/(1<<30), m.Kernel, m.Go, s.Began.Format(time.DateOnly)),
		"",
		fmt.Sprintf("h1 (clients) - h2 (relay) - h3 (servers) in network namespaces, all on this machine; %s, windows of %g s after %g s; clients and servers: %s%s",
			s.HowOften(), s.Seconds, s.WarmUp, s.With, congestion),
		"",
		"    " + s.Command,
		"",
	}
	for _, relay := range r.Relays {
		lines = append(lines, fmt.Sprintf("- %s: %s (%s)", relay.Name, relay.Title, relay.Way))
	}
	lines = append(lines, "", Legend(r))
	for _, n := range r.Notes {
		lines = append(lines, "", "Note: "+n+".")
	}
	return append(lines, "")
}

// Legend explains the cells of tables.
func Legend(r *stats.Results) string {
	text := "Each figure is the median of the rounds"
	if base := r.Settings.Baseline; base != "" {
		text += ", in brackets that of its ratios to " + base + " in the same round"
	}
	return text + "; ± is its 95 % confidence interval, for which six rounds are needed."
}

// rows is the table of a workload.
func rows(r *stats.Results, w scenario.Workload) [][]string {
	head := []string{"relay"}
	for _, m := range w.Metrics {
		head = append(head, m.Title)
	}
	rows := [][]string{head}
	for _, relay := range r.Relays {
		at := stats.At{Workload: w.Name, Relay: relay.Name}
		if !r.Has(at) {
			continue
		}
		row := []string{relay.Name}
		for _, m := range w.Metrics {
			row = append(row, show(r.Cell(at, m), m))
		}
		if failed := r.Failed(at); failed != "" {
			row = append([]string{relay.Name, failedPrefix + failed}, make([]string, len(w.Metrics)-1)...)
		}
		rows = append(rows, row)
	}
	return rows
}

const failedPrefix = "failed: "

// show is how a figure is shown in a table.
func show(c stats.Cell, m scenario.Metric) string {
	if m.Count && c.Rounds > 0 {
		return units.Thousands(fmt.Sprintf("%.0f", c.Median))
	}
	return c.String()
}

// writeRows writes a table in Markdown, in columns.
func writeRows(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			// A long error does not widen all columns.
			if n := utf8.RuneCountInString(cell); !strings.HasPrefix(cell, failedPrefix) {
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
		if n > 0 {
			continue
		}
		fmt.Fprintf(b, "| %s |", strings.Repeat("-", width[0]))
		for _, w := range width[1:] {
			fmt.Fprintf(b, " %s: |", strings.Repeat("-", w-1))
		}
		b.WriteByte('\n')
	}
}
