package stats_test

import (
	"math"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/stats/statstest"
)

func metric(t *testing.T, workload, name string) scenario.Metric {
	t.Helper()
	w, _ := scenario.Find(workload)
	m, ok := w.Metric(name)
	if !ok {
		t.Fatalf("no %s at %s", name, workload)
	}
	return m
}

func cellOf(t *testing.T, r *stats.Results, workload, relay, name string) stats.Cell {
	t.Helper()
	return r.Cell(stats.At{Workload: workload, Relay: relay}, metric(t, workload, name))
}

func TestCellIsTheMedianWithItsRatio(t *testing.T) {
	r := &stats.Results{Settings: stats.Settings{Baseline: "haproxy"}}
	for i, v := range []float64{10, 30, 20} {
		r.Runs = append(r.Runs,
			stats.Run{Round: i + 1, Workload: "rr-1", Relay: "tprelay", Figures: scenario.Figures{scenario.Rate: v, scenario.Errors: 2}},
			stats.Run{Round: i + 1, Workload: "rr-1", Relay: "haproxy", Figures: scenario.Figures{scenario.Rate: 2 * v}},
			stats.Run{Round: i + 1, Workload: "rr-1", Relay: "iocopy", Error: "broken"})
	}
	if c := cellOf(t, r, "rr-1", "tprelay", scenario.Rate); c.Median != 20 || c.Rounds != 3 || c.Ratio != 0.5 || !math.IsInf(c.Lo, -1) || !math.IsInf(c.Hi, 1) || c.String() != "20.0 (0.50)" {
		t.Errorf("%+v, %v", c, c)
	}
	if c := cellOf(t, r, "rr-1", "tprelay", scenario.Errors); c.Median != 6 || c.Ratio != 0 || c.Spread() != 0 {
		t.Errorf("errors are not added up: %+v", c)
	}
	if c := cellOf(t, r, "rr-1", "iocopy", scenario.Rate); c.Rounds != 0 || c.Error != "broken" {
		t.Errorf("%+v", c)
	}
	if c := cellOf(t, r, "rr-1", "tprelay", scenario.RelayCPU); c.Rounds != 0 || c.String() != "-" {
		t.Errorf("%+v", c)
	}
}

func TestSpreadIsTheConfidenceIntervalOfTheMedian(t *testing.T) {
	r := &stats.Results{}
	for i, v := range []float64{100, 92, 104, 98, 102, 300, 96, 101, 99} {
		r.Runs = append(r.Runs, stats.Run{Round: i + 1, Workload: "rr-1", Relay: "tprelay", Figures: scenario.Figures{scenario.Rate: v}})
	}
	// Of nine values in order, the second and the eighth bound the median with 96 %.
	if c := cellOf(t, r, "rr-1", "tprelay", scenario.Rate); c.Median != 100 || c.Lo != 96 || c.Hi != 104 || c.String() != "100 ±4 %" {
		t.Errorf("%+v, %v", c, c)
	}
}

func TestMedianOfAnEvenNumberIsBetween(t *testing.T) {
	for want, values := range map[float64][]float64{3: {3}, 2.5: {4, 1}, 5: {9, 1, 5}, 4.5: {1, 100, 2, 7}} {
		r := &stats.Results{}
		for i, v := range values {
			r.Runs = append(r.Runs, stats.Run{Round: i + 1, Workload: "rr-1", Relay: "tprelay", Figures: scenario.Figures{scenario.Rate: v}})
		}
		if c := cellOf(t, r, "rr-1", "tprelay", scenario.Rate); math.Abs(c.Median-want) > 1e-12 {
			t.Errorf("%v: %g, want %g", values, c.Median, want)
		}
	}
}

func TestRatioIsOfTheSameRound(t *testing.T) {
	r := &stats.Results{Settings: stats.Settings{Baseline: "haproxy"}}
	for i, v := range []float64{10, 30, 20, 50} {
		base := stats.Run{Round: i + 1, Workload: "rr-1", Relay: "haproxy", Figures: scenario.Figures{scenario.Rate: v}}
		switch i {
		case 2:
			base.Figures[scenario.Rate] = 4 * v
		case 3:
			base.Figures, base.Error = nil, "broken"
		}
		r.Runs = append(r.Runs, base, stats.Run{Round: i + 1, Workload: "rr-1", Relay: "tprelay", Figures: scenario.Figures{scenario.Rate: 2 * v}})
	}
	// 2, 2 and 0.5, though its median is 50 and the other's 30.
	if c := cellOf(t, r, "rr-1", "tprelay", scenario.Rate); c.Median != 50 || c.Ratio != 2 {
		t.Errorf("%+v", c)
	}
	if c := cellOf(t, r, "rr-1", "haproxy", scenario.Rate); c.Ratio != 1 {
		t.Errorf("%+v", c)
	}
	r.Runs = r.Runs[len(r.Runs)-2:] // the round that has none
	if c := cellOf(t, r, "rr-1", "tprelay", scenario.Rate); c.Rounds != 1 || c.Ratio != 0 {
		t.Errorf("%+v", c)
	}
}

func TestSpoiledRunsCountOnlyWhereTooFewAreLeft(t *testing.T) {
	r := &stats.Results{Settings: stats.Settings{Baseline: "haproxy"}}
	for round, stolen := range []float64{0.5, 0, 0.01, 0.02} {
		// The machine is twice as fast in each round as in the one before.
		speed := float64(int(1) << round)
		r.Runs = append(r.Runs,
			stats.Run{Round: round + 1, Workload: "rr-100", Relay: "tprelay", Stolen: stolen, Figures: scenario.Figures{scenario.Rate: (1 + 9*stolen) * speed}},
			stats.Run{Round: round + 1, Workload: "rr-100", Relay: "haproxy", Figures: scenario.Figures{scenario.Rate: 2 * speed}})
	}
	if c := cellOf(t, r, "rr-100", "haproxy", scenario.Rate); c.Rounds != 4 || c.Median != 6 {
		t.Errorf("nothing was taken from its runs, and still: %+v", c)
	}
	if c := cellOf(t, r, "rr-100", "tprelay", scenario.Rate); c.Rounds != 3 || c.Ratio > 0.6 {
		t.Errorf("its run of the first round was spoiled, and still: %+v", c)
	}
	r.Runs[3].Stolen = 0.03 // haproxy's of the second round: two pairs are left
	if c := cellOf(t, r, "rr-100", "tprelay", scenario.Rate); c.Rounds != 3 || math.Abs(c.Ratio-(0.545+0.59)/2) > 1e-12 {
		t.Errorf("%+v, want the ratio of all rounds", c)
	}
	if c := cellOf(t, r, "rr-100", "haproxy", scenario.Rate); c.Rounds != 3 || c.Median != 8 {
		t.Errorf("its run of the second round was spoiled, and still: %+v", c)
	}
	r.Runs[1].Stolen = 0.03 // two are left
	if c := cellOf(t, r, "rr-100", "haproxy", scenario.Rate); c.Rounds != 4 {
		t.Errorf("%+v", c)
	}
}

func TestStealIsWarnedOf(t *testing.T) {
	r := statstest.Example()
	if text := strings.Join(r.Warnings(), "\n"); strings.Contains(text, "host") {
		t.Errorf("nothing was stolen, and it says\n%s", text)
	}
	r.Runs[3].Stolen = 0.25
	const want = "the host of this virtual machine took more than 2 % of the CPU time (steal) in 1 of 60 runs, at most 25 %; these runs do not count where 3 others are left, for a relay or for a ratio of two"
	if text := strings.Join(r.Warnings(), "\n"); !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}

func TestManyBusyRunsAreOneWarning(t *testing.T) {
	r := statstest.Example()
	for i := range r.Runs {
		r.Runs[i].Others = 0.3 + float64(i)/1000
	}
	const want = "other programs used more than 5 % of the machine in 60 of 60 runs, at most 36 %; nothing else should run"
	if text := strings.Join(r.Warnings(), "\n"); strings.Count(text, "other programs") != 1 || !strings.Contains(text, want) {
		t.Errorf("%q", text)
	}
}

func TestSameRelayTwiceIsComparedWithItself(t *testing.T) {
	r := &stats.Results{Workloads: []string{"cps-50"}, Settings: stats.Settings{Baseline: "tprelay"}}
	for _, name := range []string{"tprelay", "tprelay#2"} {
		r.Relays = append(r.Relays, stats.Relay{Name: name, Relay: "tprelay"})
	}
	for i, v := range []float64{100, 110, 105, 103} {
		r.Runs = append(r.Runs,
			stats.Run{Round: i + 1, Workload: "cps-50", Relay: "tprelay", Figures: scenario.Figures{scenario.Rate: v, scenario.RelayCPU: 1 + v/1000}},
			stats.Run{Round: i + 1, Workload: "cps-50", Relay: "tprelay#2", Figures: scenario.Figures{scenario.Rate: v + 2, scenario.RelayCPU: 2 + v/1000}})
	}
	got := strings.Join(r.Twins(), "\n")
	for _, want := range []string{
		"cps-50, connections/s: tprelay#2 over tprelay is 1.019 (p = 0.57)",
		"cps-50, service demand µs/connection: tprelay#2 over tprelay is 1.906 (p = 0.03)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestHowOftenSaysTheLeastAndTheMost(t *testing.T) {
	s := stats.Settings{Rounds: 3}
	if got := s.HowOften(); got != "3 rounds" {
		t.Error(got)
	}
	s.RoundsAt = map[string]int{"rr-1": 20}
	if got := s.HowOften(); got != "3 or 20 rounds" {
		t.Error(got)
	}
}
