// Package targets judges results by what the project asks of itself, which is in targets.txt. Only
// tpbench compare --check uses it.
package targets

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tprelay/tprelay/bench/runner"
	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/units"
)

//go:embed targets.txt
var table string

// ComparedRounds is how often workloads are measured with which targets compare relays.
const ComparedRounds = 20

// Target is a figure of a relay, or its ratio to another, with its bounds.
type Target struct {
	Workload, Relay, Metric string
	// Against is the relay that the figure is divided by, "" for none.
	Against string
	// AgainstWorkload is the workload of the same relay that it is divided by, "" for none.
	AgainstWorkload string
	Required, Goal  float64 // Goal is 0 for none
}

// All reads targets.txt.
func All() ([]Target, error) { return parse(table) }

func parse(text string) (all []Target, err error) {
	for number, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 6 {
			return nil, fmt.Errorf("targets.txt:%d: want 6 columns", number+1)
		}
		t := Target{Workload: fields[0], Relay: fields[1], Metric: fields[2]}
		switch by := fields[3]; {
		case strings.HasPrefix(by, "@"):
			t.AgainstWorkload = by[1:]
		case by != "-":
			t.Against = by
		}
		t.Required, err = strconv.ParseFloat(fields[4], 64)
		if err == nil && fields[5] != "-" {
			t.Goal, err = strconv.ParseFloat(fields[5], 64)
		}
		if err != nil {
			return nil, fmt.Errorf("targets.txt:%d: %w", number+1, err)
		}
		all = append(all, t)
	}
	return all, nil
}

// about says whether the target is about the relay with the workload.
func (t Target) about(workload, relay string) bool {
	return (t.Workload == workload || t.AgainstWorkload == workload) && (t.Relay == relay || t.Against == relay)
}

// Plan restricts a plan to what the targets are about. Workloads with which they compare relays get
// rounds, or [ComparedRounds] for 0.
func Plan(p runner.Plan, all []Target, rounds int) runner.Plan {
	if rounds == 0 {
		rounds = ComparedRounds
	}
	p.RoundsAt = map[string]int{}
	for _, t := range all {
		if t.Against != "" {
			p.RoundsAt[t.Workload] = rounds
		}
	}
	return p.Restrict(func(workload, relay string) bool {
		return slices.ContainsFunc(all, func(t Target) bool { return t.about(workload, relay) })
	})
}

// Verdict is what results say of a target.
type Verdict struct {
	Target
	Title   string // what the figure is
	Value   float64
	Missing bool // it was measured, without a figure
	More    bool // is better
}

// Meets says whether the figure meets a bound.
func (v Verdict) Meets(bound float64) bool {
	const rounding = 1e-9
	switch {
	case v.Missing:
		return false
	case v.More:
		return v.Value >= bound-rounding
	}
	return v.Value <= bound+rounding
}

// Judge judges those targets whose workloads were measured with the relays in question.
func Judge(r *stats.Results, all []Target) (verdicts []Verdict) {
	for _, t := range all {
		w, _ := scenario.Find(t.Workload)
		m, known := w.Metric(t.Metric)
		of := stats.At{Workload: t.Workload, Relay: t.Relay}
		if !known || !r.Has(of) {
			continue
		}
		title := m.Title
		if m.Name == scenario.Throughput {
			title = m.Name
		}
		v := Verdict{Target: t, More: m.More, Title: fmt.Sprintf("%s, %s", t.Workload, title)}
		if t.Relay != "tprelay" {
			v.Title = t.Relay + " at " + v.Title
		}
		c := r.Cell(of, m)
		if c.Rounds == 0 && c.Error == "" {
			continue // the generator does not tell, as wrk does not of p99.9
		}
		v.Value, v.Missing = c.Median, c.Rounds == 0
		if t.Against != "" || t.AgainstWorkload != "" {
			to := of
			if t.Against != "" {
				to.Relay = t.Against
				v.Title += " against " + t.Against
			} else {
				to.Workload = t.AgainstWorkload
				v.Title += " over " + t.AgainstWorkload
			}
			if r.Cell(to, m).Rounds == 0 {
				continue // nothing to compare with: no verdict on tprelay
			}
			ratio, ok := r.Ratio(m, of, to)
			v.Value, v.Missing = ratio, !ok
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// String is a verdict in one line.
func (v Verdict) String() string {
	if v.Missing {
		return fmt.Sprintf("%s: no figure: required %s FAIL", v.Title, bound(v.Required))
	}
	value := fmt.Sprintf("%.2f", v.Value)
	if value == bound(v.Required) && !v.Meets(v.Required) || value == bound(v.Goal) && !v.Meets(v.Goal) {
		value = fmt.Sprintf("%.3f", v.Value) // rounded, it would seem to meet it
	}
	if v.Against == "" && v.AgainstWorkload == "" {
		value = units.Figure(v.Value)
	}
	required, goal := "FAIL", "not yet"
	if v.Meets(v.Required) {
		required = "pass"
	}
	if v.Meets(v.Goal) {
		goal = "reached"
	}
	line := fmt.Sprintf("%s %s: required %s %s", v.Title, value, bound(v.Required), required)
	if v.Goal != 0 {
		line += fmt.Sprintf(", goal %s %s", bound(v.Goal), goal)
	}
	return line
}

// bound is a bound as people write it: 0.97, 1.00, 512.
func bound(x float64) string {
	if x >= 2 {
		return units.Figure(x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Failed counts the verdicts whose requirement is not met.
func Failed(verdicts []Verdict) (n int) {
	for _, v := range verdicts {
		if !v.Meets(v.Required) {
			n++
		}
	}
	return n
}
