package targets

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/runner"
	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats/statstest"
)

func all(t *testing.T) []Target {
	t.Helper()
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTargetsNameWhatThereIs(t *testing.T) {
	if n := len(all(t)); n != 31 {
		t.Errorf("%d targets", n)
	}
	for _, target := range all(t) {
		w, ok := scenario.Find(target.Workload)
		m, known := w.Metric(target.Metric)
		if !ok || !known {
			t.Errorf("%+v: no such workload or metric", target)
		}
		if target.Required == 0 || target.Goal != 0 && (target.Goal < target.Required) == m.More && target.Goal != target.Required {
			t.Errorf("%+v: the goal is no better than what is required", target)
		}
		for _, name := range []string{target.Relay, target.Against} {
			if _, err := runner.Choose([]string{name}, ""); name != "" && err != nil {
				t.Error(err)
			}
		}
		if _, ok := scenario.Find(target.AgainstWorkload); target.AgainstWorkload != "" && !ok {
			t.Errorf("%+v: no such workload", target)
		}
	}
}

func TestTableThatCannotBeReadIsAnError(t *testing.T) {
	for text, want := range map[string]string{"rr-1 tprelay rate -": "targets.txt:1: want 6 columns", "\nrr-1 tprelay rate - x -": "targets.txt:2: "} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPlanForTargetsHasThemAllAndNothingElse(t *testing.T) {
	p := runner.Plan{Rounds: 3, WarmUp: 300 * time.Millisecond, Window: 1200 * time.Millisecond}
	var err error
	if p.Candidates, err = runner.Choose(nil, ""); err != nil {
		t.Fatal(err)
	}
	p.Workloads = scenario.Workloads()
	p = Plan(p, all(t), 0)
	measured, seen := map[string]int{}, map[string]bool{}
	for _, s := range p.Steps() {
		measured[s.Workload.Name+" "+s.Candidate.Name]++
		seen[s.Workload.Name], seen[s.Candidate.Name] = true, true
	}
	needed := map[string]bool{}
	for _, target := range all(t) {
		rounds := 3
		if target.Against != "" {
			rounds = ComparedRounds
			needed[target.Workload+" "+target.Against] = true
		}
		if target.AgainstWorkload != "" {
			needed[target.AgainstWorkload+" "+target.Relay] = true
		}
		needed[target.Workload+" "+target.Relay] = true
		if n := measured[target.Workload+" "+target.Relay]; n != rounds {
			t.Errorf("%+v: %d rounds, want %d", target, n, rounds)
		}
	}
	for name := range needed {
		if measured[name] == 0 {
			t.Errorf("%s is not measured", name)
		}
	}
	for name := range measured {
		if !needed[name] {
			t.Errorf("%s is measured, and no target is about it", name)
		}
	}
	for _, c := range p.Candidates {
		if !seen[c.Name] {
			t.Errorf("%s is in the plan, and is not measured", c.Name)
		}
	}
	for _, w := range p.Workloads {
		if !seen[w.Name] {
			t.Errorf("%s is in the plan, and is not measured", w.Name)
		}
	}
	if total := p.Total(); total > 30*time.Minute {
		t.Errorf("make bench-check would take %v", total)
	}
}

func TestVerdictsGolden(t *testing.T) {
	const path = "testdata/verdicts.golden"
	var got bytes.Buffer
	for _, v := range Judge(statstest.Example(), all(t)) {
		got.WriteString(v.String() + "\n")
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || got.String() != string(want) {
		t.Errorf("%v; UPDATE_GOLDEN=1 writes it anew; got\n%s", err, &got)
	}
}

func TestBoundIsMetOnTheSideThatIsBetter(t *testing.T) {
	for _, tc := range []struct {
		v     Verdict
		bound float64
		want  bool
	}{
		{Verdict{Value: 0.97, More: true}, 0.97, true}, {Verdict{Value: 0.96, More: true}, 0.97, false},
		{Verdict{Value: 512}, 512, true}, {Verdict{Value: 513}, 512, false}, {Verdict{Missing: true}, 1, false},
	} {
		if got := tc.v.Meets(tc.bound); got != tc.want {
			t.Errorf("%+v against %g: %v", tc.v, tc.bound, got)
		}
	}
}

func TestTargetOfAFailedRunIsNotMet(t *testing.T) {
	r := statstest.Example()
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Relay == "tprelay" && run.Workload == "idle-8000" {
			run.Figures, run.Error = nil, "it ended"
		}
	}
	if n := Failed(Judge(r, all(t))) - Failed(Judge(statstest.Example(), all(t))); n != 2 {
		t.Errorf("%d more fail, want 2", n)
	}
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Relay == "haproxy" && run.Workload == "bulk-1-up" {
			run.Figures, run.Error = nil, "it ended"
		}
	}
	for _, v := range Judge(r, all(t)) {
		if v.Workload == "bulk-1-up" && v.Against == "haproxy" {
			t.Errorf("judged against nothing: %v", v)
		}
	}
}
