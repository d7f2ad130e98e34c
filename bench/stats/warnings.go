package stats

import (
	"fmt"

	"github.com/tprelay/tprelay/bench/units"
)

// Warnings are those of the machine and of the runs.
func (r *Results) Warnings() (lines []string) {
	if note := r.Machine.note(); note != "" {
		lines = append(lines, note)
	}
	lines = append(lines, r.busy()...)
	lines = append(lines, r.stolen()...)
	for _, run := range r.Runs {
		for _, w := range run.Warnings {
			lines = append(lines, fmt.Sprintf("%s, %s, round %d: %s", run.Workload, run.Relay, run.Round, w))
		}
		if run.Error != "" && r.Failed(At{run.Workload, run.Relay}) == "" {
			lines = append(lines, fmt.Sprintf("%s, %s, round %d failed, and is left out: %s", run.Workload, run.Relay, run.Round, run.Error))
		}
	}
	return lines
}

// busy warns of other programs that used the machine: run by run, or in one line if there are many.
func (r *Results) busy() (lines []string) {
	const much, many = 0.05, 6
	most := 0.0
	for _, run := range r.Runs {
		if run.Others > much {
			most = max(most, run.Others)
			lines = append(lines, fmt.Sprintf("%s, %s, round %d: other programs used %.0f %% of the machine", run.Workload, run.Relay, run.Round, 100*run.Others))
		}
	}
	if len(lines) > many {
		return []string{fmt.Sprintf("other programs used more than %.0f %% of the machine in %d of %s, at most %.0f %%; nothing else should run",
			100*much, len(lines), units.Plural(len(r.Runs), "run"), 100*most)}
	}
	return lines
}

// stolen warns of runs from which the host took too much although they were repeated.
func (r *Results) stolen() []string {
	runs, most := 0, 0.0
	for _, run := range r.Runs {
		if run.Spoiled() {
			runs++
			most = max(most, run.Stolen)
		}
	}
	if runs == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the host of this virtual machine took more than %.0f %% of the CPU time (steal) in %d of %s, at most %.0f %%; "+
		"these runs do not count where %d others are left, for a relay or for a ratio of two",
		100*MaxSteal, runs, units.Plural(len(r.Runs), "run"), 100*most, EnoughRounds)}
}

// Twins compares relays that were measured twice with themselves.
func (r *Results) Twins() (lines []string) {
	for i, relay := range r.Relays {
		for _, twin := range r.Relays[i+1:] {
			if twin.Relay != relay.Relay {
				continue
			}
			for _, w := range r.Measured() {
				for _, m := range w.Metrics {
					a, b := At{w.Name, relay.Name}, At{w.Name, twin.Name}
					before, after := r.Cell(a, m), r.Cell(b, m)
					if !m.Count && before.Median != 0 && after.Rounds > 0 {
						p, _ := r.Differ(m, a, b)
						lines = append(lines, fmt.Sprintf("%s, %s: %s over %s is %.3f (p = %.2f)", w.Name, m.Title, twin.Name, relay.Name, after.Median/before.Median, p))
					}
				}
			}
		}
	}
	return lines
}
