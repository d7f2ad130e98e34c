package runner

import (
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/scenario"
)

func turnsOf(t *testing.T, workload string) *scenario.Turns {
	t.Helper()
	w, ok := scenario.Find(workload)
	if !ok || w.Turns == nil {
		t.Fatalf("%s has no turns", workload)
	}
	return w.Turns
}

func TestTurnsMakeUpTheWindow(t *testing.T) {
	bulk, rr := turnsOf(t, "bulk-1-up"), turnsOf(t, "rr-100")
	for _, c := range []struct {
		*scenario.Turns
		relays int
		window time.Duration
		turns  int
	}{
		{bulk, 1, 4 * time.Second, 1}, {bulk, 2, 4 * time.Second, 7}, {bulk, 9, 1600 * time.Millisecond, 5}, {bulk, 4, 100 * time.Millisecond, 1},
		{bulk, 14, 4 * time.Second, 21}, // shorter ones, so that nobody waits too long
		{rr, 1, 4 * time.Second, 1}, {rr, 4, 4 * time.Second, 4}, {rr, 9, 1600 * time.Millisecond, 3}, {rr, 14, 4 * time.Second, 20}, {rr, 30, time.Second, 20},
	} {
		n, length := turns(c.Turns, c.relays, c.window)
		if n != c.turns {
			t.Errorf("%d relays, %v: %d turns of %v, want %d", c.relays, c.window, n, length, c.turns)
		}
		if sum := time.Duration(n) * length; sum > c.window || sum < c.window-time.Duration(n) {
			t.Errorf("%d relays, %v: %d turns of %v", c.relays, c.window, n, length)
		}
		if cycle := time.Duration(c.relays) * slot(c.Turns, length); c.relays > 1 && cycle > c.Cycle && length != leastTurn {
			t.Errorf("%d relays, %v: a cycle of %v", c.relays, c.window, cycle)
		}
	}
}

// Of all moments each belongs to one relay at most, and what its workers count is its own turns.
func TestTurnsDoNotOverlap(t *testing.T) {
	table := timetable{Turns: &scenario.Turns{Settle: 30 * time.Millisecond}, begin: time.Now(), relays: 3, turns: 4, length: 50 * time.Millisecond}
	last := table.begin
	for turn := range table.turns {
		for relay := range table.relays {
			at := table.at(turn, relay)
			if at.Before(last) {
				t.Errorf("turn %d of relay %d begins %v before the one before has ended", turn, relay, last.Sub(at))
			}
			last = at.Add(table.Settle + table.length + turnDrain)
			w := table.window(relay)
			from := w.From.Add(time.Duration(turn) * w.Every)
			if from != at.Add(table.Settle) || w.Part != table.length || w.Settle != table.Settle {
				t.Errorf("turn %d of relay %d is at %v, and %+v is counted", turn, relay, at, w)
			}
			if end := from.Add(w.Part); turn == table.turns-1 && !end.Equal(w.To) {
				t.Errorf("the window of relay %d ends %v off its last turn", relay, w.To.Sub(end))
			}
		}
	}
}
