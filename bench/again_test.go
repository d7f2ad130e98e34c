package bench

import (
	"strings"
	"testing"
)

func TestRunsThatTheHostSpoiledAreDoneAgainInTurn(t *testing.T) {
	r := &Results{Runs: []Run{{Stolen: 0.01}, {Stolen: 0.3}, {Stolen: 0.5}, {Stolen: 0.9, Error: "it failed"}}}
	// Each time as much is stolen as the list says.
	for _, c := range []struct {
		run int
		now float64
	}{{2, 0.6}, {1, 0.1}, {2, 0}, {1, 0.2}, {1, 0.02}} {
		i := r.spoiled()
		if i != c.run {
			t.Fatalf("run %d is due, want %d: %+v", i, c.run, r.Runs)
		}
		r.Runs[i].better(Run{Stolen: c.now})
	}
	if i := r.spoiled(); i != -1 {
		t.Errorf("run %d is due, and none should be: %+v", i, r.Runs)
	}
	for i, want := range []float64{0.01, 0.02, 0} {
		if got := r.Runs[i].Stolen; got != want {
			t.Errorf("of run %d %g were stolen, want %g", i, got, want)
		}
	}
}

func TestARunThatFailsTheSecondTimeStays(t *testing.T) {
	run := Run{Stolen: 0.3, Figures: map[string]float64{rate: 1}}
	run.better(Run{Error: "it failed"})
	if run.Error != "" || run.Figures[rate] != 1 {
		t.Errorf("%+v", run)
	}
}

func TestStolenTimeIsSaid(t *testing.T) {
	r := example()
	if text := r.Markdown(); strings.Contains(text, "host") {
		t.Errorf("nothing was stolen, and it says\n%s", text)
	}
	r.Runs[3].Stolen = 0.25
	const want = "- the machine's host took more than 2 % of its CPU time in 1 of 60 runs, at most 25 %: figures that come of them mean little\n"
	if text := r.Markdown(); !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}
