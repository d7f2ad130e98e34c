package runner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/testbed"
)

func planOf(t *testing.T, relays, only []string) Plan {
	t.Helper()
	p := Plan{Rounds: 3, WarmUp: time.Second, Window: 4 * time.Second, Named: len(relays) > 0}
	var err error
	if p.Candidates, err = Choose(relays, ""); err != nil {
		t.Fatal(err)
	}
	if p.Workloads, err = scenario.Choose(nil, only); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRelaysTakeTurnsInAnOrderDrawnForEachRound(t *testing.T) {
	var b strings.Builder
	for _, s := range planOf(t, []string{"direct", "tprelay", "haproxy"}, []string{"rr-1", "cps-50"}).Steps() {
		fmt.Fprintln(&b, s.Round, s.Workload.Name, s.Candidate.Name)
	}
	const want = `
1 rr-1 direct
1 rr-1 tprelay
1 rr-1 haproxy
1 cps-50 tprelay
1 cps-50 direct
1 cps-50 haproxy
2 rr-1 tprelay
2 rr-1 haproxy
2 rr-1 direct
2 cps-50 direct
2 cps-50 tprelay
2 cps-50 haproxy
3 rr-1 haproxy
3 rr-1 direct
3 rr-1 tprelay
3 cps-50 haproxy
3 cps-50 direct
3 cps-50 tprelay
`
	if got := "\n" + b.String(); got != want {
		t.Error(got)
	}
}

func TestVariantsAreMeasuredWithPrincipalWorkloadsUnlessNamed(t *testing.T) {
	count := func(p Plan, relay, workload string) (n int) {
		for _, s := range p.Steps() {
			if s.Candidate.Name == relay && s.Workload.Name == workload {
				n++
			}
		}
		return n
	}
	byDefault, named := planOf(t, nil, nil), planOf(t, []string{"haproxy-copy", "direct"}, nil)
	for _, tc := range []struct {
		plan            Plan
		relay, workload string
		want            int
	}{
		{byDefault, "haproxy-copy", "rr-100", 3}, {byDefault, "haproxy-copy", "rr-1", 0}, {byDefault, "haproxy", "rr-1", 3},
		{named, "haproxy-copy", "rr-1", 3}, {byDefault, "iocopy", "many-40000", 0}, {byDefault, "tprelay", "many-40000", 3},
	} {
		if got := count(tc.plan, tc.relay, tc.workload); got != tc.want {
			t.Errorf("%s at %s: %d runs, want %d", tc.relay, tc.workload, got, tc.want)
		}
	}
}

func TestRelaysOfAWorkloadHaveTheSameRounds(t *testing.T) {
	p := planOf(t, []string{"direct", "tprelay"}, []string{"rr-1", "rr-100", "idle-8000"})
	p.RoundsAt = map[string]int{"rr-100": 4, "idle-8000": 1}
	rounds := map[string][]int{}
	for _, s := range p.Steps() {
		name := s.Workload.Name + " " + s.Candidate.Name
		rounds[name] = append(rounds[name], s.Round)
	}
	const want = "map[idle-8000 direct:[1] idle-8000 tprelay:[1] rr-1 direct:[1 2 3] rr-1 tprelay:[1 2 3] rr-100 direct:[1 2 3 4] rr-100 tprelay:[1 2 3 4]]"
	if got := fmt.Sprint(rounds); got != want {
		t.Error(got)
	}
}

func TestEstimateAddsUp(t *testing.T) {
	p := planOf(t, []string{"direct", "tprelay"}, []string{"rr-100", "idle-1000"})
	// 300 ms and a quarter per 1,000 connections, the warm-up; a window in 4 turns, or a look.
	const rr = 325*time.Millisecond + 5*time.Second + testbed.SettleTime + 4*(500*time.Millisecond+turnDrain)
	const idle = 550*time.Millisecond + 2*time.Second
	if got, want := p.Total(), 2*3*(rr+idle); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestMakeBenchEndsInTime: the whole set as make bench runs it. (Estimates are on the safe side:
// where one said 24 min, the run took 22 and a half, with what was repeated.)
func TestMakeBenchEndsInTime(t *testing.T) {
	p := planOf(t, nil, nil)
	p.Named, p.Rounds, p.Window, p.WarmUp = false, 6, time.Second, 300*time.Millisecond
	p.FewerAtRest()
	if total := p.Total(); total > 30*time.Minute {
		t.Errorf("make bench would take %v", total)
	}
	p = planOf(t, []string{"direct", "tprelay", "haproxy", "iocopy"}, []string{"bulk-1-up", "rr-100", "rr-2000", "cps-50", "idle-1000"})
	p.Rounds, p.Window = 2, 2*time.Second
	if total := p.Total(); total > 3*time.Minute {
		t.Errorf("make bench-quick would take %v", total)
	}
}

func TestARelayNamedTwiceHasTwoNames(t *testing.T) {
	chosen, err := Choose([]string{"tprelay", "direct", "tprelay"}, "")
	if err != nil || len(chosen) != 3 || chosen[0].Name != "tprelay" || chosen[2].Name != "tprelay#2" || chosen[2].Relay.Name != "tprelay" {
		t.Errorf("%v, %v", chosen, err)
	}
}

func TestRelayCommandIsMeasuredToo(t *testing.T) {
	chosen, err := Choose(nil, "myrelay")
	if err != nil || chosen[len(chosen)-1].Name != "command" {
		t.Errorf("%v, %v", chosen, err)
	}
}
