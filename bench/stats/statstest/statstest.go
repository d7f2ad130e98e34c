// Package statstest has results for tests.
package statstest

import (
	"time"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
)

// Example is results of fixed figures: three rounds, one relay that fails with one workload
// and once at another, and one that was there twice.
func Example() *stats.Results {
	r := &stats.Results{
		Machine:   stats.Machine{CPU: "Example CPU", Cores: 2, Memory: 4 << 30, Kernel: "6.1.0", Go: "1.26.0", LoadAvg: 1.5},
		Settings:  stats.Settings{Began: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), Command: "tpbench compare --relays direct,tprelay,haproxy,iocopy", Rounds: 3, Seconds: 4, WarmUp: 1, Baseline: "haproxy", With: "builtin"},
		Workloads: []string{"bulk-1-up", "rr-100", "idle-8000", "scale-100", "scale-8000"},
		Notes:     []string{"socat is left out: socat is not installed; apt-get install socat"},
	}
	for _, name := range []string{"direct", "tprelay", "haproxy", "iocopy"} {
		r.Relays = append(r.Relays, stats.Relay{Name: name, Relay: name, Title: "the relay " + name, Way: "transparent", Advice: "as <it> is"})
	}
	bulk := map[string][3]float64{"direct": {30, 0, 0.5}, "tprelay": {20, 0.20, 0.8}, "haproxy": {19, 0.22, 0.9}, "iocopy": {18, 0.25, 1}}
	rr := map[string]float64{"direct": 90000, "tprelay": 65000, "haproxy": 61000, "iocopy": 50000}
	for round := range 3 {
		for _, relay := range r.Relays {
			add := func(workload string, figures scenario.Figures) {
				for name, v := range figures {
					figures[name] = v * []float64{1, 1.02, 0.97}[round]
					if relay.Name == "direct" && (name == scenario.RelayCPU || name == scenario.Resident || name == scenario.Descriptors) {
						delete(figures, name)
					}
				}
				r.Runs = append(r.Runs, stats.Run{Round: round + 1, Workload: workload, Relay: relay.Name, Began: r.Settings.Began.Add(time.Duration(len(r.Runs)) * 5 * time.Second), Figures: figures})
			}
			b := bulk[relay.Name]
			add("bulk-1-up", scenario.Figures{scenario.Throughput: b[0], scenario.RelayCPU: b[1], scenario.MachineCPU: b[2]})
			f := rr[relay.Name]
			add("rr-100", scenario.Figures{scenario.Rate: f, scenario.P50: 5e4 / f, scenario.P90: 8e4 / f, scenario.P99: 2e5 / f, scenario.P999: 9e5 / f, scenario.RelayCPU: 8e5 / f, scenario.MachineCPU: 2e6 / f, scenario.Errors: 0})
			add("idle-8000", scenario.Figures{scenario.Resident: 1e7 / f, scenario.Descriptors: 2, scenario.Errors: 0})
			add("scale-100", scenario.Figures{scenario.RelayCPU: 8e5 / f, scenario.Rate: 20000, scenario.P99: 2e5 / f, scenario.Errors: 0})
			add("scale-8000", scenario.Figures{scenario.RelayCPU: 1e6 / f, scenario.Rate: 20000, scenario.P99: 3e5 / f, scenario.Errors: 0})
		}
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		switch {
		case run.Relay == "iocopy" && run.Workload == "scale-8000":
			run.Figures, run.Error = nil, "no request was answered in the window"
		case run.Relay == "iocopy" && run.Workload == "rr-100" && run.Round == 2:
			run.Figures, run.Error = nil, "relay iocopy: it ended by itself"
		case run.Relay == "haproxy" && run.Workload == "rr-100":
			run.Figures[scenario.Rate] *= 1 + 0.1*float64(run.Round)
			run.Figures[scenario.Errors] = float64(run.Round)
			run.Others, run.Warnings = 0.12, []string{"2 errors, the first: connection reset by peer"}
		}
	}
	return r
}
