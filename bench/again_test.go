package bench

import (
	"slices"
	"strings"
	"testing"
)

func TestHeatsThatTheHostSpoiledAreDoneAgainInTurn(t *testing.T) {
	r := &Results{}
	run := func(round int, point string, stolen float64, failure string) {
		r.Runs = append(r.Runs, Run{Round: round, Point: point, Stolen: stolen, Error: failure})
	}
	run(1, "rr-100", 0.01, "")
	run(1, "rr-100", 0.3, "")
	run(1, "bulk-1-up", 0.02, "")
	run(2, "rr-100", 0.5, "")
	run(2, "rr-100", 0, "")
	run(2, "bulk-1-up", 0.9, "")
	run(2, "bulk-1-up", 0, "it failed")
	times := map[heat]int{}
	for _, want := range [][]int{{3, 4}, {0, 1}, {3, 4}, {0, 1}} {
		due := r.due(times)
		if !slices.Equal(due, want) {
			t.Fatalf("runs %v are due, want %v", due, want)
		}
		times[r.Runs[due[0]].heat()]++
	}
	r.Runs[3].Stolen = 0.02
	times = map[heat]int{{"rr-100", 1}: 5}
	if due := r.due(times); !slices.Equal(due, []int{0, 1}) {
		t.Errorf("runs %v are due, and only those of the first heat are spoiled", due)
	}
	r.Runs[1].Stolen = 0
	if due := r.due(times); due != nil {
		t.Errorf("runs %v are due, and none should be", due)
	}
}

func TestAHeatDoneAgainCountsWhenLessWasStolen(t *testing.T) {
	before := []Run{{Stolen: 0.01}, {Stolen: 0.3}}
	for _, c := range []struct {
		again []Run
		want  bool
	}{
		{[]Run{{Stolen: 0.2}, {Stolen: 0.29}}, true},
		{[]Run{{Stolen: 0.3}}, false},
		{[]Run{{Stolen: 0}, {Error: "it failed"}}, false},
	} {
		if got := better(c.again, before); got != c.want {
			t.Errorf("%+v is better: %v", c.again, got)
		}
	}
}

func TestSpoiledRunsCountOnlyWhereTooFewAreLeft(t *testing.T) {
	r := &Results{Settings: Settings{Baseline: "haproxy"}}
	for round, stolen := range []float64{0.5, 0, 0.01, 0.02} {
		// The machine is twice as fast in each round as in the one before.
		speed := float64(int(1) << round)
		r.Runs = append(r.Runs,
			Run{Round: round + 1, Point: "rr-100", Relay: "tprelay", Stolen: stolen, Figures: map[string]float64{rate: (1 + 9*stolen) * speed}},
			Run{Round: round + 1, Point: "rr-100", Relay: "haproxy", Figures: map[string]float64{rate: 2 * speed}})
	}
	point, _ := FindPoint("rr-100")
	metric := point.Metrics[0]
	if c := r.Cell(point, "haproxy", metric); c.Rounds != 4 || c.Min != 2 || c.Max != 16 {
		t.Errorf("nothing was taken from its runs, and still: %+v", c)
	}
	if c := r.Cell(point, "tprelay", metric); c.Rounds != 3 || c.Ratio > 0.6 {
		t.Errorf("its run of the first round was spoiled, and still: %+v", c)
	}
	r.Runs[3].Stolen = 0.03 // haproxy's of the second round: two pairs are left
	if c := r.Cell(point, "tprelay", metric); c.Rounds != 3 || c.Ratio != (0.545+0.59)/2 {
		t.Errorf("%+v, want the ratio of all rounds", c)
	}
	if c := r.Cell(point, "haproxy", metric); c.Rounds != 3 || c.Min != 2 {
		t.Errorf("its run of the second round was spoiled, and still: %+v", c)
	}
	r.Runs[1].Stolen = 0.03 // two are left
	if c := r.Cell(point, "haproxy", metric); c.Rounds != 4 {
		t.Errorf("%+v", c)
	}
}

func TestStolenTimeIsSaid(t *testing.T) {
	r := example()
	if text := r.Markdown(); strings.Contains(text, "host") {
		t.Errorf("nothing was stolen, and it says\n%s", text)
	}
	r.Runs[3].Stolen = 0.25
	const want = "- the machine's host took more than 2 % of its CPU time in 1 of 60 runs, at most 25 %: they do not count where 3 others are left, for a relay or for a ratio of two\n"
	if text := r.Markdown(); !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}
