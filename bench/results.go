package bench

import (
	"fmt"
	"slices"
	"time"
)

// Results are all that was measured, raw.
type Results struct {
	Machine  Machine  `json:"machine"`
	Settings Settings `json:"settings"`
	Relays   []Relay  `json:"relays"`          // in the order of the tables
	Points   []string `json:"points"`          // their names, likewise
	Notes    []string `json:"notes,omitempty"` // what was left out, and the like
	Runs     []Run    `json:"runs"`            // in the order of time
}

// Settings are what all runs had in common.
type Settings struct {
	Began   time.Time `json:"began"`
	Command string    `json:"command"` // to do it again
	Rounds  int       `json:"rounds"`
	// TargetRounds are those of relays at points where a target compares them, 0 for Rounds.
	TargetRounds int     `json:"target_rounds,omitempty"`
	Seconds      float64 `json:"seconds"` // of each window
	WarmUp       float64 `json:"warm_up_seconds"`
	Baseline     string  `json:"baseline"` // a relay, "" for none
	With         string  `json:"with"`     // builtin, iperf3 or wrk
	// Congestion is the congestion control of all connections, "" in results of before it was set.
	Congestion string  `json:"congestion_control,omitempty"`
	ScaleRate  float64 `json:"scale_requests_per_s,omitempty"`
}

// HowOften gives "3 rounds", or the same and how many there are where targets compare relays.
func (s Settings) HowOften() string {
	text := plural(s.Rounds, "round")
	if s.TargetRounds > 0 && s.TargetRounds != s.Rounds {
		text += fmt.Sprintf(", %d where a target compares relays", s.TargetRounds)
	}
	return text
}

// Relay is one that was measured.
type Relay struct {
	Name   string `json:"name"` // in the tables; of two that are the same relay, the second has #2
	Peer   string `json:"peer"` // as on the command line
	Title  string `json:"title"`
	Way    string `json:"way"` // how connections came to it
	Advice string `json:"advice,omitempty"`
}

// Run is one relay at one point in one round.
type Run struct {
	Round    int                `json:"round"` // from 1
	Point    string             `json:"point"`
	Relay    string             `json:"relay"`
	Began    time.Time          `json:"began"`
	Figures  map[string]float64 `json:"figures,omitempty"` // by the names of the point's metrics
	Error    string             `json:"error,omitempty"`   // why there are no figures
	Others   float64            `json:"others"`            // part of the machine that other programs used
	Stolen   float64            `json:"stolen"`            // part of it that its host did not give it
	Warnings []string           `json:"warnings,omitempty"`
}

// points gives the points that were measured.
func (r *Results) points() (points []Point) {
	for _, name := range r.Points {
		if p, ok := FindPoint(name); ok {
			points = append(points, p)
		}
	}
	return points
}

// Cell is what the rounds gave for one figure.
type Cell struct {
	Median, Min, Max float64
	Rounds           int     // that count
	Ratio            float64 // to the baseline, see ratio; 0: none
	Error            string  // of a run that failed; with Rounds > 0 others did not
}

// Spread is half the range, as a part of the median.
func (c Cell) Spread() float64 {
	if c.Median == 0 {
		return 0
	}
	return (c.Max - c.Min) / 2 / c.Median
}

// Cell gives the figure of a relay at a point. Rounds is 0 and Error "" if there is
// none: a relay that is none has no CPU time.
func (r *Results) Cell(point Point, relay string, metric Metric) Cell {
	c := r.cell(point.Name, relay, metric)
	if base := r.Settings.Baseline; base != "" && !metric.Count {
		c.Ratio, _ = r.ratio(metric, at{point.Name, relay}, at{point.Name, base})
	}
	return c
}

// at is a relay at a point.
type at struct{ point, relay string }

// ratio is the median of the rounds' ratios: a machine that is slower in one round than in
// another, as virtual ones are, is so for both. A ratio is spoiled if one of its two runs is.
// False: no round has both figures.
func (r *Results) ratio(metric Metric, of, to at) (float64, bool) {
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
	return median(counting(all, spared)), true
}

// figure is one that a run found.
type figure struct {
	value   float64
	spoiled bool // by the machine's host
}

// figures gives the figures of a relay at a point by their rounds.
func (r *Results) figures(metric Metric, a at) map[int]figure {
	byRound := map[int]figure{}
	for _, run := range r.Runs {
		if v, ok := run.Figures[metric.Name]; ok && run.Error == "" && run.Point == a.point && run.Relay == a.relay {
			byRound[run.Round] = figure{v, run.spoiled()}
		}
	}
	return byRound
}

func (r *Results) cell(point, relay string, metric Metric) (c Cell) {
	for _, run := range r.Runs {
		if run.Point == point && run.Relay == relay && run.Error != "" {
			c.Error = run.Error
		}
	}
	var all, spared []float64
	for _, f := range r.figures(metric, at{point, relay}) {
		all = append(all, f.value)
		if !f.spoiled {
			spared = append(spared, f.value)
		}
	}
	if len(all) == 0 {
		return c
	}
	if metric.Count {
		sum := 0.0
		for _, v := range all {
			sum += v
		}
		c.Rounds, c.Median, c.Min, c.Max = len(all), sum, sum, sum
		return c
	}
	values := counting(all, spared)
	c.Rounds, c.Min, c.Max, c.Median = len(values), slices.Min(values), slices.Max(values), median(values)
	return c
}

// has says whether the relay was measured at the point, or was meant to be and failed.
func (r *Results) has(point, relay string) bool {
	return slices.ContainsFunc(r.Runs, func(run Run) bool { return run.Point == point && run.Relay == relay })
}

// median is the middle value, or the mean of the two in the middle. There is at least one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
