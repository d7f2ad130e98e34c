package scenario

import (
	"slices"
	"testing"
)

func TestWorkloadsAreCompleteAndUnique(t *testing.T) {
	names := map[string]bool{}
	for _, s := range All() {
		about := s.About()
		if about.Name == "" || about.Title == "" || about.How == "" || about.Loop == "" || names[about.Name] {
			t.Errorf("%+v", about)
		}
		names[about.Name] = true
		if len(s.Workloads()) == 0 {
			t.Errorf("scenario %s has no workloads", about.Name)
		}
	}
	workloads := map[string]bool{}
	for _, w := range Workloads() {
		if w.Name == "" || w.Title == "" || w.Scenario == nil || len(w.Metrics) == 0 || w.Connections == 0 || w.Request == 0 || w.Reply == 0 || workloads[w.Name] {
			t.Errorf("%+v", w)
		}
		workloads[w.Name] = true
		metrics := map[string]bool{}
		for _, m := range w.Metrics {
			if metrics[m.Name] || m.Title == "" || m.Unit == "" || m.How == "" {
				t.Errorf("%s: %+v", w.Name, m)
			}
			metrics[m.Name] = true
		}
	}
	for _, g := range Generators() {
		if !names[g.Scenario] {
			t.Errorf("%s is for scenario %s, which does not exist", g.Name, g.Scenario)
		}
	}
}

func TestWorkloadsHaveTheNamesOfNetperf(t *testing.T) {
	aliases := map[string][]string{}
	for _, w := range Workloads() {
		if w.Alias != "" {
			aliases[w.Alias] = append(aliases[w.Alias], w.Name)
		}
	}
	for alias, name := range map[string]string{"TCP_STREAM": "bulk-1-up", "TCP_MAERTS": "bulk-64-down", "TCP_RR": "rr-100", "TCP_CRR": "cps-50"} {
		if !slices.Contains(aliases[alias], name) {
			t.Errorf("%s: %v, without %s", alias, aliases[alias], name)
		}
	}
}
