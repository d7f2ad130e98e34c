package bench

import (
	"strings"
	"testing"
)

func TestTargetsNameWhatThereIs(t *testing.T) {
	for _, target := range Targets() {
		p, ok := FindPoint(target.Point)
		m, known := p.metric(target.Metric)
		if !ok || !known {
			t.Errorf("%+v: no such point or metric", target)
		}
		if target.Must == 0 || target.After != 0 && (target.After < target.Must) == m.More && target.After != target.Must {
			t.Errorf("%+v: after is no better than must", target)
		}
		for _, name := range []string{target.Relay, target.Against} {
			if _, err := ChooseRelays([]string{name}, ""); name != "" && err != nil {
				t.Error(err)
			}
		}
		if _, ok := FindPoint(target.AgainstPoint); target.AgainstPoint != "" && !ok {
			t.Errorf("%+v: no such point", target)
		}
	}
}

func TestVerdictsGolden(t *testing.T) {
	var lines []string
	for _, v := range example().Verdicts() {
		lines = append(lines, v.String()+"\n")
	}
	golden(t, "verdicts.golden", []byte(strings.Join(lines, "")))
}

func TestBoundIsHeldOnTheSideThatIsBetter(t *testing.T) {
	for _, tc := range []struct {
		v     Verdict
		bound float64
		want  bool
	}{
		{Verdict{Value: 0.97, More: true}, 0.97, true}, {Verdict{Value: 0.96, More: true}, 0.97, false},
		{Verdict{Value: 512}, 512, true}, {Verdict{Value: 513}, 512, false}, {Verdict{Missing: true}, 1, false},
	} {
		if got := tc.v.Held(tc.bound); got != tc.want {
			t.Errorf("%+v against %g: %v", tc.v, tc.bound, got)
		}
	}
}

func TestTargetOfAFailedRunIsNotHeld(t *testing.T) {
	r := example()
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Relay == "tprelay" && run.Point == "idle-8000" {
			run.Figures, run.Error = nil, "it ended"
		}
	}
	if n := Broken(r.Verdicts()) - Broken(example().Verdicts()); n != 2 {
		t.Errorf("%d more are broken, want 2", n)
	}
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Relay == "haproxy" && run.Point == "bulk-1-up" {
			run.Figures, run.Error = nil, "it ended"
		}
	}
	for _, v := range r.Verdicts() {
		if v.Point == "bulk-1-up" && v.Against == "haproxy" {
			t.Errorf("judged against nothing: %v", v)
		}
	}
}
