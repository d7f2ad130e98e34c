package bench

import (
	_ "embed"
	"io"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/bench/svg"
)

//go:embed report.html.tmpl
var page string

// The page, as the template sees it.
type (
	pageView struct {
		*Results
		Date      string
		Legend    []legendView
		Scenarios []scenarioView
		Warnings  []string
		Twins     []string
		Verdicts  []verdictView
	}
	legendView struct {
		Relay
		Class string
	}
	scenarioView struct {
		Scenario
		Drawings []*svg.Drawing
		Tables   []tableView
		Metrics  []Metric // each once, for how it was measured
	}
	tableView struct {
		Name, Title string
		Head        []string
		Rows        [][]string
	}
	verdictView struct {
		Text string
		Held bool
	}
)

// HTML writes the page: everything in one file, which loads nothing.
func (r *Results) HTML(w io.Writer) error {
	t, err := svg.Page("report", page)
	if err != nil {
		return err
	}
	return t.Execute(w, r.view())
}

func (r *Results) view() pageView {
	v := pageView{Results: r, Date: r.Settings.Began.Format("2 January 2006, 15:04"), Warnings: r.warnings(), Twins: r.selfCheck()}
	for i, relay := range r.Relays {
		v.Legend = append(v.Legend, legendView{relay, r.series(i)})
	}
	for _, s := range Scenarios() {
		var points []Point
		for _, p := range r.points() {
			if p.Scenario == s.Name {
				points = append(points, p)
			}
		}
		if len(points) > 0 {
			v.Scenarios = append(v.Scenarios, r.scenario(s, points))
		}
	}
	for _, verdict := range r.Verdicts() {
		v.Verdicts = append(v.Verdicts, verdictView{verdict.String(), verdict.Held(verdict.Must)})
	}
	return v
}

func (r *Results) scenario(s Scenario, points []Point) scenarioView {
	v := scenarioView{Scenario: s}
	add := func(d *svg.Drawing) {
		if d != nil {
			v.Drawings = append(v.Drawings, d)
		}
	}
	seen := map[string]bool{}
	for _, p := range points {
		for _, m := range p.Metrics {
			if seen[m.Name] {
				continue
			}
			seen[m.Name] = true
			v.Metrics = append(v.Metrics, m)
			quantile := slices.Contains([]string{p50, p90, p99, p999}, m.Name)
			if !m.Count && (!quantile || s.Name == "cps") {
				add(r.bars(points, m.Name))
			}
		}
	}
	if s.Name == "scale" {
		add(r.growing(points, relayCPU))
	}
	for _, p := range points {
		add(r.latencies(p))
		rows := r.rows(p)
		v.Tables = append(v.Tables, tableView{p.Name, p.Title, rows[0], rows[1:]})
	}
	return v
}

// Failed says whether a cell of the page tells of a failure.
func (tableView) Failed(cell string) bool { return strings.HasPrefix(cell, "failed: ") }
