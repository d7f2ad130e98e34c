package bottleneck

import (
	"slices"
	"strings"
	"testing"
)

// twoRounds is the example with a run without flow control.
func twoRounds() *Comparison {
	c := example()
	for round := 1; round <= 2; round++ {
		c.Runs = append(c.Runs, &Measured{Round: round, Relay: Control, Figures: Figures{SenderRate: 19e6, ArrivedRate: 5.7e6, PendingMost: 17 << 20, Growth: 18 << 20}})
	}
	return c
}

func TestGoalsNameWhatIsMissed(t *testing.T) {
	c := twoRounds()
	c.Settings.Crowd, c.Crowd = 200, &Measured{Figures: Figures{Growth: 3 << 20}, Record: Record{Failed: 2}}
	var keys []string
	for _, g := range c.Goals() {
		keys = append(keys, g.Key)
		if g.Measured == "" || g.Required == "" {
			t.Errorf("%+v", g)
		}
	}
	if !slices.Equal(keys, goalKeys()) {
		t.Errorf("goals %v", keys)
	}
	if missed := c.Missed(goalKeys()); len(missed) > 0 {
		t.Errorf("missed %v", missed)
	}
	for key, spoil := range map[string]func(f Figures){
		"ratio":      func(f Figures) { f[Ratio] = 1.06 },
		"settle":     func(f Figures) { delete(f, Settle) },
		"throughput": func(f Figures) { f[Throughput] = 0.97 },
		"delay":      func(f Figures) { f[AddedMedian] = 151 },
		"excess":     func(f Figures) { f[ExcessInFlight] = 0.81 * mib },
		"pending":    func(f Figures) { f[PendingMost] = 1<<20 + 1 },
		"memory":     func(f Figures) { f[Growth] = 1<<20 + 1 },
		"flows":      func(Figures) { c.Crowd.Figures[Growth] = 201 << 20 },
		"control": func(Figures) {
			for _, f := range c.rounds(Control) {
				f[SenderRate] = 6e6
			}
		},
	} {
		c = twoRounds()
		c.Settings.Crowd, c.Crowd = 200, &Measured{Figures: Figures{Growth: 3 << 20}}
		for _, f := range c.rounds("tprelay") {
			spoil(f)
		}
		if missed := c.Missed(goalKeys()); !slices.Equal(missed, []string{key}) {
			t.Errorf("%s: missed %v", key, missed)
		}
		if rows := GoalRows(c.Goals()); !slices.ContainsFunc(rows, func(row []string) bool { return strings.HasSuffix(row[2], "  MISSED") }) {
			t.Errorf("%s: %v", key, rows)
		}
		if missed := c.Missed([]string{"none of them"}); len(missed) > 0 {
			t.Errorf("%s: missed %v, which was not asked for", key, missed)
		}
	}
}

func TestNoGoalsWithoutDirect(t *testing.T) {
	c := &Comparison{Relays: []Name{{Name: "tprelay"}}, Runs: []*Measured{{Round: 1, Relay: "tprelay", Figures: Figures{Ratio: 1}}}}
	if goals := c.Goals(); len(goals) > 0 {
		t.Errorf("%v", goals)
	}
}

func TestWorksDependsOnNoFigure(t *testing.T) {
	c := twoRounds()
	c.of(1, "tprelay").Figures[Ratio] = 7
	if missed := c.Missed([]string{Works}); len(missed) > 0 {
		t.Errorf("missed %v", missed)
	}
	c.of(2, "tprelay").Figures[ArrivedRate] = 0
	c.of(1, Control).Figures[SenderRate] = 5.7e6
	if missed := strings.Join(c.Missed([]string{Works}), "; "); missed != "round 2: nothing arrived with tprelay; round 1: the sender was not faster without flow control" {
		t.Errorf("missed %s", missed)
	}
}

func TestGoalsAreChosenByName(t *testing.T) {
	if all, err := ChooseGoals([]string{"all"}); err != nil || !slices.Equal(all, goalKeys()) {
		t.Errorf("%v, %v", all, err)
	}
	if some, err := ChooseGoals([]string{"delay", Works}); err != nil || len(some) != 2 {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := ChooseGoals([]string{"speed"}); err == nil {
		t.Error("speed is no goal")
	}
}
