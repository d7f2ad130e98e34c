package runner

import (
	"slices"
	"testing"

	"github.com/tprelay/tprelay/bench/stats"
)

func TestRoundGroupsThatTheHostSpoiledAreRepeatedInTurn(t *testing.T) {
	var runs []stats.Run
	run := func(round int, workload string, stolen float64, failure string) {
		runs = append(runs, stats.Run{Round: round, Workload: workload, Stolen: stolen, Error: failure})
	}
	run(1, "rr-100", 0.01, "")
	run(1, "rr-100", 0.3, "")
	run(1, "bulk-1-up", 0.02, "")
	run(2, "rr-100", 0.5, "")
	run(2, "rr-100", 0, "")
	run(2, "bulk-1-up", 0.9, "")
	run(2, "bulk-1-up", 0, "it failed")
	times := map[group]int{}
	for _, want := range [][]int{{3, 4}, {0, 1}, {3, 4}, {0, 1}} {
		numbers := due(runs, times)
		if !slices.Equal(numbers, want) {
			t.Fatalf("runs %v are due, want %v", numbers, want)
		}
		times[groupOf(runs[numbers[0]])]++
	}
	runs[3].Stolen = 0.02
	times = map[group]int{{"rr-100", 1}: 5}
	if numbers := due(runs, times); !slices.Equal(numbers, []int{0, 1}) {
		t.Errorf("runs %v are due, and only those of the first group are spoiled", numbers)
	}
	runs[1].Stolen = 0
	if numbers := due(runs, times); numbers != nil {
		t.Errorf("runs %v are due, and none should be", numbers)
	}
}

func TestARepeatedRoundGroupCountsWhenLessWasStolen(t *testing.T) {
	before := []stats.Run{{Stolen: 0.01}, {Stolen: 0.3}}
	for _, c := range []struct {
		again []stats.Run
		want  bool
	}{
		{[]stats.Run{{Stolen: 0.2}, {Stolen: 0.29}}, true},
		{[]stats.Run{{Stolen: 0.3}}, false},
		{[]stats.Run{{Stolen: 0}, {Error: "it failed"}}, false},
	} {
		if got := better(c.again, before); got != c.want {
			t.Errorf("%+v is better: %v", c.again, got)
		}
	}
}
