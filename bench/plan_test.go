package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func planOf(t *testing.T, relays, only []string) Plan {
	t.Helper()
	p := Plan{Rounds: 3, WarmUp: time.Second, Window: 4 * time.Second, Named: len(relays) > 0}
	var err error
	if p.Relays, err = ChooseRelays(relays, ""); err != nil {
		t.Fatal(err)
	}
	if p.Points, err = ChoosePoints(nil, only); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRelaysTakeTurnsInAnOrderDrawnForEachRound(t *testing.T) {
	var b strings.Builder
	for _, s := range planOf(t, []string{"direct", "tprelay", "haproxy"}, []string{"rr-1", "cps-50"}).Steps() {
		fmt.Fprintln(&b, s.Round, s.Point.Name, s.Relay.Name)
	}
	golden(t, "plan.golden", []byte(b.String()))
}

func TestVariantsAreMeasuredAtPrincipalPointsUnlessNamed(t *testing.T) {
	count := func(p Plan, relay, point string) (n int) {
		for _, s := range p.Steps() {
			if s.Relay.Name == relay && s.Point.Name == point {
				n++
			}
		}
		return n
	}
	byDefault, named := planOf(t, nil, nil), planOf(t, []string{"haproxy-copy", "direct"}, nil)
	for _, tc := range []struct {
		plan         Plan
		relay, point string
		want         int
	}{
		{byDefault, "haproxy-copy", "rr-100", 3}, {byDefault, "haproxy-copy", "rr-1", 0}, {byDefault, "haproxy", "rr-1", 3},
		{named, "haproxy-copy", "rr-1", 3}, {byDefault, "iocopy", "many-40000", 0}, {byDefault, "tprelay", "many-40000", 3},
	} {
		if got := count(tc.plan, tc.relay, tc.point); got != tc.want {
			t.Errorf("%s at %s: %d runs, want %d", tc.relay, tc.point, got, tc.want)
		}
	}
}

func TestComparedRelaysHaveRoundsOfTheirOwn(t *testing.T) {
	p := planOf(t, []string{"direct", "tprelay"}, []string{"rr-1", "rr-100", "idle-8000"})
	p.TargetRounds = 4
	rounds := map[string][]int{}
	for _, s := range p.Steps() {
		name := s.Point.Name + " " + s.Relay.Name
		rounds[name] = append(rounds[name], s.Round)
	}
	const want = "map[idle-8000 direct:[1 2 3] idle-8000 tprelay:[1 2 3] rr-1 direct:[1 2 3] rr-1 tprelay:[1 2 3] rr-100 direct:[1 2 3] rr-100 tprelay:[1 2 3 4]]"
	if got := fmt.Sprint(rounds); got != want {
		t.Error(got)
	}
	if got := (Settings{Rounds: 3, TargetRounds: 4}).HowOften(); got != "3 rounds, 4 where a target compares relays" {
		t.Error(got)
	}
}

func TestPlanForTargetsHasThemAllAndNothingElse(t *testing.T) {
	p := planOf(t, nil, nil).ForTargets()
	measured, seen := map[string]bool{}, map[string]bool{}
	for _, s := range p.Steps() {
		measured[s.Point.Name+" "+s.Relay.Name] = true
		seen[s.Point.Name], seen[s.Relay.Name] = true, true
	}
	for _, target := range Targets() {
		needed := []string{target.Point + " " + target.Relay}
		if target.Against != "" {
			needed = append(needed, target.Point+" "+target.Against)
		}
		if target.AgainstPoint != "" {
			needed = append(needed, target.AgainstPoint+" "+target.Relay)
		}
		for _, n := range needed {
			if _, ok := measured[n]; !ok {
				t.Errorf("%s is not measured", n)
			}
			measured[n] = false // needed
		}
	}
	for name, spare := range measured {
		if spare {
			t.Errorf("%s is measured, and no target is about it", name)
		}
	}
	for _, relay := range p.Relays {
		if !seen[relay.Name] {
			t.Errorf("%s is in the plan, and is not measured", relay.Name)
		}
	}
	for _, point := range p.Points {
		if !seen[point.Name] {
			t.Errorf("%s is in the plan, and is not measured", point.Name)
		}
	}
}

func TestEstimateAddsUp(t *testing.T) {
	p := planOf(t, []string{"direct", "tprelay"}, []string{"rr-100", "idle-1000"})
	// 300 ms and a quarter per 1,000 connections, the warm-up; a window in 4 turns, or a look.
	const rr = 325*time.Millisecond + 5*time.Second + lead + 4*(500*time.Millisecond+turnDrain)
	const idle = 550*time.Millisecond + 2*time.Second
	if got, want := p.Total(), 2*3*(rr+idle); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestMakeBenchEndsInTime: the whole set as make bench runs it, with some minutes to spare for
// the build and for what is done again. (Estimates are on the safe side: where one said 24 min,
// the run took 22 and a half, with what was done again.)
func TestMakeBenchEndsInTime(t *testing.T) {
	p := planOf(t, nil, nil)
	p.Named, p.TargetRounds, p.Window, p.WarmUp = false, 12, 1200*time.Millisecond, 300*time.Millisecond
	if total := p.Total(); total > 26*time.Minute {
		t.Errorf("make bench would take %v", total)
	}
	p = planOf(t, []string{"direct", "tprelay", "haproxy", "iocopy"}, []string{"bulk-1-up", "rr-100", "rr-2000", "cps-50", "idle-1000"})
	p.Rounds, p.Window = 2, 2*time.Second
	if total := p.Total(); total > 3*time.Minute {
		t.Errorf("make bench-quick would take %v", total)
	}
}

func TestARelayNamedTwiceHasTwoNames(t *testing.T) {
	chosen, err := ChooseRelays([]string{"tprelay", "direct", "tprelay"}, "")
	if err != nil || len(chosen) != 3 || chosen[0].Name != "tprelay" || chosen[2].Name != "tprelay#2" || chosen[2].Relay.Name != "tprelay" {
		t.Errorf("%v, %v", chosen, err)
	}
}

func TestRelayCommandIsMeasuredToo(t *testing.T) {
	chosen, err := ChooseRelays(nil, "myrelay")
	if err != nil || chosen[len(chosen)-1].Name != "command" {
		t.Errorf("%v, %v", chosen, err)
	}
}

func TestPointsAreCompleteAndUnique(t *testing.T) {
	scenarios, points := map[string]bool{}, map[string]bool{}
	for _, s := range Scenarios() {
		scenarios[s.Name] = false
	}
	for _, p := range Points() {
		if _, known := scenarios[p.Scenario]; !known || points[p.Name] || p.Title == "" || len(p.Metrics) == 0 || p.Connections == 0 {
			t.Errorf("%+v", p)
		}
		scenarios[p.Scenario], points[p.Name] = true, true
		metrics := map[string]bool{}
		for _, m := range p.Metrics {
			if metrics[m.Name] || m.Title == "" || m.Unit == "" || m.How == "" {
				t.Errorf("%s: %+v", p.Name, m)
			}
			metrics[m.Name] = true
		}
	}
	for name, used := range scenarios {
		if !used {
			t.Errorf("scenario %s has no points", name)
		}
	}
}
