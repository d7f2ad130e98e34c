package bench

import (
	"fmt"
	"slices"
)

// Target is what the project asks of itself: a figure of tprelay, as it is or against
// another relay's, that must be held, and one that is wanted after that.
type Target struct {
	Point, Relay, Metric string
	// Against is the relay that the figure is divided by, "" for none.
	Against string
	// AgainstPoint is the point that it is divided by, of the same relay, "" for none.
	AgainstPoint string
	Must, After  float64 // After is 0 where no more is wanted
}

// Targets lists them. Figures are medians of one run of the command; tprelay has one
// loop, haproxy one thread.
func Targets() (targets []Target) {
	add := func(t Target, must, after float64) {
		t.Must, t.After = must, after
		if t.Relay == "" {
			t.Relay = "tprelay"
		}
		targets = append(targets, t)
	}
	for _, p := range []string{"bulk-1-up", "bulk-4-up"} {
		add(Target{Point: p, Metric: throughput, Against: "haproxy"}, 0.97, 1.05)
		add(Target{Point: p, Metric: throughput, Against: "iocopy"}, 1.0, 1.15)
		add(Target{Point: p, Metric: relayCPU, Against: "haproxy"}, 1.05, 0.90)
		add(Target{Point: p, Metric: relayCPU, Against: "iocopy"}, 0.85, 0.70)
	}
	// For small messages forced splicing costs HAProxy more than it gives, so we measure
	// ourselves against it without, too: there we must not be worse.
	for _, peer := range []struct {
		name                           string
		rate, rateAfter, cpu, cpuAfter float64 // at rr-2000
		cps                            float64
	}{
		{"haproxy", 1.15, 1.4, 0.75, 0.6, 0.9},
		{"haproxy-copy", 1.0, 1.15, 1.0, 0.75, 1.0},
	} {
		add(Target{Point: "rr-100", Metric: rate, Against: peer.name}, 0.97, 1.10)
		add(Target{Point: "rr-100", Metric: relayCPU, Against: peer.name}, 1.0, 0.85)
		add(Target{Point: "rr-100", Metric: p99, Against: peer.name}, 1.2, 0.9)
		add(Target{Point: "rr-2000", Metric: rate, Against: peer.name}, peer.rate, peer.rateAfter)
		add(Target{Point: "rr-2000", Metric: relayCPU, Against: peer.name}, peer.cpu, peer.cpuAfter)
		add(Target{Point: "cps-50", Metric: relayCPU, Against: peer.name}, peer.cps, 0.7)
	}
	add(Target{Point: "rr-100", Metric: rate, Against: "iocopy"}, 1.15, 1.3)
	add(Target{Point: "rr-100", Metric: relayCPU, Against: "iocopy"}, 0.8, 0.65)
	add(Target{Point: "rr-100", Metric: p99, Against: "iocopy"}, 0.5, 0.4)
	add(Target{Point: "rr-2000", Metric: rate, Against: "iocopy"}, 1.15, 1.3)
	add(Target{Point: "rr-2000", Metric: relayCPU, Against: "iocopy"}, 0.8, 0.65)
	add(Target{Point: "cps-50", Metric: relayCPU, Against: "iocopy"}, 0.65, 0.5)
	add(Target{Point: "idle-8000", Metric: resident}, 512, 256)
	add(Target{Point: "idle-8000", Metric: descriptors}, 2, 2)
	add(Target{Point: "bulk-1-up", Relay: "tprelay-buffered", Metric: relayCPU, Against: "haproxy-copy"}, 1.0, 0)
	add(Target{Point: "bulk-1-up", Relay: "tprelay-buffered", Metric: relayCPU, Against: "iocopy-nosplice"}, 0.85, 0)
	add(Target{Point: "scale-8000", Metric: relayCPU, AgainstPoint: "scale-100"}, 1.3, 1.1)
	return targets
}

// about says whether the target is about the relay at the point.
func (t Target) about(point, relay string) bool {
	return (t.Point == point || t.AgainstPoint == point) && (t.Relay == relay || t.Against == relay)
}

// forTargets says whether a target is about the relay at the point.
func forTargets(point, relay string) bool {
	return slices.ContainsFunc(Targets(), func(t Target) bool { return t.about(point, relay) })
}

// compared says whether a target compares the relay with another at the point.
func compared(point, relay string) bool {
	return slices.ContainsFunc(Targets(), func(t Target) bool { return t.Against != "" && t.about(point, relay) })
}

// Verdict is what the results say of a target.
type Verdict struct {
	Target
	Title   string // what the figure is
	Value   float64
	Missing bool // it was measured, without a figure
	More    bool // is better
}

// Held says whether the figure keeps a bound.
func (v Verdict) Held(bound float64) bool {
	const rounding = 1e-9
	switch {
	case v.Missing:
		return false
	case v.More:
		return v.Value >= bound-rounding
	}
	return v.Value <= bound+rounding
}

// Verdicts judges those targets whose points were measured with the relays in
// question.
func (r *Results) Verdicts() (verdicts []Verdict) {
	for _, t := range Targets() {
		p, ok := FindPoint(t.Point)
		m, known := p.metric(t.Metric)
		if !ok || !known || !r.has(t.Point, t.Relay) {
			continue
		}
		v := Verdict{Target: t, More: m.More, Title: fmt.Sprintf("%s, %s", t.Point, m.title())}
		if t.Relay != "tprelay" {
			v.Title = t.Relay + " at " + v.Title
		}
		c := r.cell(t.Point, t.Relay, m)
		if c.Rounds == 0 && c.Error == "" {
			continue // these ends do not tell, as wrk does not of p99.9
		}
		v.Value, v.Missing = c.Median, c.Rounds == 0
		if t.Against != "" || t.AgainstPoint != "" {
			point, relay := t.Point, t.Relay
			if t.Against != "" {
				relay = t.Against
				v.Title += " against " + relay
			} else {
				point = t.AgainstPoint
				v.Title += " over " + point
			}
			if r.cell(point, relay, m).Rounds == 0 {
				continue // nothing to compare with: no verdict on tprelay
			}
			if ratio, ok := r.ratio(m, at{t.Point, t.Relay}, at{point, relay}); ok {
				v.Value = ratio
			} else {
				v.Missing = true
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// title is the metric in words, for sentences.
func (m Metric) title() string {
	if m.Name == throughput {
		return "throughput"
	}
	return m.Title
}

// String is a verdict in one line.
func (v Verdict) String() string {
	if v.Missing {
		return fmt.Sprintf("%s: no figure: must %s not held", v.Title, bound(v.Must))
	}
	value := fmt.Sprintf("%.2f", v.Value)
	if value == bound(v.Must) && !v.Held(v.Must) || value == bound(v.After) && !v.Held(v.After) {
		value = fmt.Sprintf("%.3f", v.Value) // rounded, it would seem to be held
	}
	if v.Against == "" && v.AgainstPoint == "" {
		value = number(v.Value)
	}
	must, after := "not held", "not yet"
	if v.Held(v.Must) {
		must = "held"
	}
	if v.Held(v.After) {
		after = "reached"
	}
	line := fmt.Sprintf("%s %s: must %s %s", v.Title, value, bound(v.Must), must)
	if v.After != 0 {
		line += fmt.Sprintf(", after %s %s", bound(v.After), after)
	}
	return line
}

// bound is a bound as people write it: 0.97, 1.0, 512.
func bound(x float64) string {
	if x >= 2 {
		return number(x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Broken counts the targets whose must is not held.
func Broken(verdicts []Verdict) (n int) {
	for _, v := range verdicts {
		if !v.Held(v.Must) {
			n++
		}
	}
	return n
}
