// Package stats holds the raw results of a comparison, and computes medians, confidence intervals
// and ratios of them.
//
// Client, relay and server share one machine. Requests per second are therefore what the machine
// does with all three; the relay's own part is its CPU time. Figures of different machines, or of
// different runs of the command, say little against each other; the ratios within one run count.
package stats

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"golang.org/x/perf/benchmath"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/units"
)

// Results are all that was measured, raw.
type Results struct {
	Machine   Machine  `json:"machine"`
	Settings  Settings `json:"settings"`
	Relays    []Relay  `json:"relays"`             // in the order of the tables
	Workloads []string `json:"workloads"`          // their names, likewise
	Notes     []string `json:"notes,omitempty"`    // what was left out, and the like
	Verdicts  []string `json:"verdicts,omitempty"` // of compare --check
	Runs      []Run    `json:"runs"`               // in the order of time
}

// Settings are what all runs had in common.
type Settings struct {
	Began   time.Time `json:"began"`
	Command string    `json:"command"` // to do it again
	Rounds  int       `json:"rounds"`
	// RoundsAt are those of workloads that have others, by name.
	RoundsAt   map[string]int `json:"rounds_at,omitempty"`
	Seconds    float64        `json:"seconds"` // of each window
	WarmUp     float64        `json:"warm_up_seconds"`
	Baseline   string         `json:"baseline"` // a relay, "" for none
	With       string         `json:"with"`     // builtin, iperf3 or wrk
	Congestion string         `json:"congestion_control,omitempty"`
	// Rate is the open loop's requests per second where it was calibrated.
	Rate float64 `json:"calibrated_requests_per_s,omitempty"`
}

// HowOften gives "6 rounds", or the least and the most.
func (s Settings) HowOften() string {
	all := append(slices.Collect(maps.Values(s.RoundsAt)), s.Rounds)
	if least, most := slices.Min(all), slices.Max(all); least < most {
		return fmt.Sprintf("%d or %d rounds", least, most)
	}
	return units.Plural(s.Rounds, "round")
}

// Relay is one that was measured.
type Relay struct {
	Name   string `json:"name"`  // in the tables; of two that are the same relay, the second has #2
	Relay  string `json:"relay"` // as on the command line
	Title  string `json:"title"`
	Way    string `json:"way"` // how connections come to it
	Advice string `json:"advice,omitempty"`
}

// Run is one relay with one workload in one round.
type Run struct {
	Round    int              `json:"round"` // from 1
	Workload string           `json:"workload"`
	Relay    string           `json:"relay"`
	Began    time.Time        `json:"began"`
	Figures  scenario.Figures `json:"figures,omitempty"`
	Error    string           `json:"error,omitempty"` // why there are no figures
	Others   float64          `json:"others"`          // part of the machine that other programs used
	Stolen   float64          `json:"stolen"`          // part of it that its host did not give it
	Warnings []string         `json:"warnings,omitempty"`
}

// MaxSteal is the share of the CPUs' time that the host of a virtual machine may take from a run.
// With more, the run is spoiled.
const MaxSteal = 0.02

// Spoiled says whether the host took too much.
func (r *Run) Spoiled() bool { return r.Error == "" && r.Stolen > MaxSteal }

// EnoughRounds that were not spoiled make those not count that were.
const EnoughRounds = 3

// Cell summarises the rounds of one figure.
type Cell struct {
	Median float64
	// Lo and Hi bound the 95 % confidence interval of the median. They are infinite with fewer than
	// six rounds.
	Lo, Hi float64
	Rounds int     // that count
	Ratio  float64 // to the baseline, see Ratio; 0: none
	Error  string  // of a run that failed; with Rounds > 0 others did not
}

// Spread is how far the interval reaches from the median, as a part of it.
func (c Cell) Spread() float64 {
	if c.Median == 0 || c.Lo == c.Hi {
		return 0
	}
	return max(c.Median-c.Lo, c.Hi-c.Median) / c.Median
}

// String is how a cell is shown: 65,390 (1.07) ±6 %.
func (c Cell) String() string {
	if c.Rounds == 0 {
		return "-"
	}
	text := units.Figure(c.Median)
	if c.Ratio != 0 {
		text += fmt.Sprintf(" (%.2f)", c.Ratio)
	}
	if spread := c.Spread(); spread > 0 && !math.IsInf(spread, 0) {
		text += fmt.Sprintf(" ±%.0f %%", 100*spread)
	}
	return text
}

// At is a relay at a workload.
type At struct{ Workload, Relay string }

// Cell summarises the figure of a relay at a workload. Rounds is 0 and Error "" if there is none: a
// relay that is none has no CPU time.
func (r *Results) Cell(at At, metric scenario.Metric) (c Cell) {
	for _, run := range r.Runs {
		if run.Workload == at.Workload && run.Relay == at.Relay && run.Error != "" {
			c.Error = run.Error
		}
	}
	values, all := r.values(at, metric)
	if len(all) == 0 {
		return c
	}
	if metric.Count {
		for _, v := range all {
			c.Median += v
		}
		c.Rounds, c.Lo, c.Hi = len(all), c.Median, c.Median
		return c
	}
	s := summary(values)
	c.Rounds, c.Median, c.Lo, c.Hi = len(values), s.Center, s.Lo, s.Hi
	if base := r.Settings.Baseline; base != "" {
		c.Ratio, _ = r.Ratio(metric, at, At{at.Workload, base})
	}
	return c
}

// Ratio is the median of the rounds' ratios: a machine that is slower in one round than in another
// is so for both relays. A ratio is spoiled if one of its two runs is. False: no round has both
// figures.
func (r *Results) Ratio(metric scenario.Metric, of, to At) (float64, bool) {
	var all, spared []float64
	base := r.figures(metric, to)
	for round, f := range r.figures(metric, of) {
		if b := base[round]; b.value != 0 {
			all = append(all, f.value/b.value)
			if !f.spoiled && !b.spoiled {
				spared = append(spared, f.value/b.value)
			}
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	return summary(counting(all, spared)).Center, true
}

// Differ compares the rounds of two relays at a workload. p is how likely two samples differ as
// much that come from the same distribution (Mann-Whitney U test). apart: p is below 5 %; of fewer
// rounds than the test needs, all of one relay lie on the same side of all of the other.
func (r *Results) Differ(metric scenario.Metric, a, b At) (p float64, apart bool) {
	x, _ := r.values(a, metric)
	y, _ := r.values(b, metric)
	if len(x) == 0 || len(y) == 0 {
		return 1, false
	}
	c := benchmath.AssumeNothing.Compare(sample(x), sample(y))
	tooFew := len(c.Warnings) > 0
	return c.P, c.P < c.Alpha || tooFew && (slices.Max(x) < slices.Min(y) || slices.Min(x) > slices.Max(y))
}

// figure is one that a run found.
type figure struct {
	value   float64
	spoiled bool // by the machine's host
}

// figures returns the figures of a relay at a workload by their rounds.
func (r *Results) figures(metric scenario.Metric, at At) map[int]figure {
	byRound := map[int]figure{}
	for _, run := range r.Runs {
		if v, ok := run.Figures[metric.Name]; ok && run.Error == "" && run.Workload == at.Workload && run.Relay == at.Relay {
			byRound[run.Round] = figure{v, run.Spoiled()}
		}
	}
	return byRound
}

// values returns those that count, and all.
func (r *Results) values(at At, metric scenario.Metric) (values, all []float64) {
	var spared []float64
	for _, f := range r.figures(metric, at) {
		all = append(all, f.value)
		if !f.spoiled {
			spared = append(spared, f.value)
		}
	}
	return counting(all, spared), all
}

// counting returns the values that count: those that the host left alone if they are enough, and
// otherwise all.
func counting(all, spared []float64) []float64 {
	if len(spared) < EnoughRounds {
		return all
	}
	return spared
}

func sample(values []float64) *benchmath.Sample {
	return benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
}

// summary is the median of the values with its 95 % confidence interval, without an assumption on
// how they are distributed.
func summary(values []float64) benchmath.Summary {
	const confidence = 0.95
	return benchmath.AssumeNothing.Summary(sample(values), confidence)
}

// Has says whether the relay was measured at the workload, or was to be and failed.
func (r *Results) Has(at At) bool {
	return slices.ContainsFunc(r.Runs, func(run Run) bool { return run.Workload == at.Workload && run.Relay == at.Relay })
}

// Failed says why there is no figure of the relay at the workload at all, or "".
func (r *Results) Failed(at At) (reason string) {
	for _, run := range r.Runs {
		if run.Workload != at.Workload || run.Relay != at.Relay {
			continue
		}
		if run.Error == "" {
			return ""
		}
		reason = run.Error
	}
	return reason
}

// Measured returns the workloads that were measured.
func (r *Results) Measured() (workloads []scenario.Workload) {
	for _, name := range r.Workloads {
		if w, ok := scenario.Find(name); ok {
			workloads = append(workloads, w)
		}
	}
	return workloads
}
