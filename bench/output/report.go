package output

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/units"
)

//go:embed report.html.tmpl
var page string

// The page, as the template sees it.
type (
	pageView struct {
		*stats.Results
		Date      string
		Legend    string
		Headlines []string
		Scenarios []scenarioView
		Warnings  []string
		Twins     []string
	}
	scenarioView struct {
		scenario.About
		Workloads []workloadView
		Metrics   []scenario.Metric // each once, for how it was measured
	}
	workloadView struct {
		Caption string
		Plots   []plotView
		Head    []string
		Rows    [][]string
	}
	// plotView is a bar chart of one metric.
	plotView struct {
		Title string
		Bars  []barView
	}
	// barView is a relay's bar. Lengths are in percent of the plot.
	barView struct {
		Relay, Text string
		Length      float64
		Lo, Width   float64 // of the confidence interval; Width is 0 for none
		Class       string
	}
)

// HTML writes the page: everything in one file, which loads nothing.
func HTML(w io.Writer, r *stats.Results) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return fmt.Errorf("template of the report: %w", err)
	}
	return t.Execute(w, view(r))
}

func view(r *stats.Results) pageView {
	v := pageView{
		Results: r, Date: r.Settings.Began.Format("2 January 2006, 15:04"), Legend: Legend(r), Headlines: Headlines(r),
		Warnings: r.Warnings(), Twins: r.Twins(),
	}
	for _, w := range r.Measured() {
		about := w.Scenario.About()
		if n := len(v.Scenarios); n == 0 || v.Scenarios[n-1].Name != about.Name {
			v.Scenarios = append(v.Scenarios, scenarioView{About: about, Metrics: w.Metrics})
		}
		s := &v.Scenarios[len(v.Scenarios)-1]
		rows := rows(r, w)
		workload := workloadView{Caption: caption(w), Head: rows[0], Rows: rows[1:]}
		for _, m := range w.Metrics {
			if plot := bars(r, w, m); !m.Count && len(plot.Bars) > 0 {
				workload.Plots = append(workload.Plots, plot)
			}
		}
		s.Workloads = append(s.Workloads, workload)
	}
	return v
}

// bars draws one metric of a workload: a bar for each relay, from zero to the largest.
func bars(r *stats.Results, w scenario.Workload, m scenario.Metric) plotView {
	better := "less is better"
	if m.More {
		better = "more is better"
	}
	v := plotView{Title: m.Title + ", " + better}
	top := 0.0
	for _, relay := range r.Relays {
		if c := r.Cell(stats.At{Workload: w.Name, Relay: relay.Name}, m); c.Rounds > 0 {
			top = max(top, c.Median)
			if !math.IsInf(c.Hi, 0) {
				top = max(top, c.Hi)
			}
		}
	}
	if top <= 0 {
		return v
	}
	percent := func(x float64) float64 { return math.Round(1000*min(max(x/top, 0), 1)) / 10 }
	for _, relay := range r.Relays {
		c := r.Cell(stats.At{Workload: w.Name, Relay: relay.Name}, m)
		if c.Rounds == 0 {
			continue
		}
		b := barView{Relay: relay.Name, Text: c.String(), Length: percent(c.Median), Class: "other"}
		switch {
		case strings.HasPrefix(relay.Relay, "tprelay"):
			b.Class = "own"
		case relay.Relay == "direct":
			b.Class = "none"
		}
		if !math.IsInf(c.Lo, 0) && !math.IsInf(c.Hi, 0) {
			b.Lo, b.Width = percent(c.Lo), math.Round(10*(percent(c.Hi)-percent(c.Lo)))/10
		}
		v.Bars = append(v.Bars, b)
	}
	return v
}

// Failed says whether a cell of the page tells of a failure.
func (workloadView) Failed(cell string) bool { return strings.HasPrefix(cell, failedPrefix) }

// Cores gives the number of cores in words.
func (v pageView) Cores() string { return units.Plural(v.Machine.Cores, "core") }
