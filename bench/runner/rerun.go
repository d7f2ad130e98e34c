package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/units"
)

// The host of a virtual machine may run something else for a while, and the run then measures that.
// The kernel counts that time (steal, see procstat.Stolen). A round group with such a run is
// repeated after all others, since disturbances last for seconds to minutes. It is repeated as a
// whole: its runs are compared with each other, and later the machine may be faster.

// group is a round group: the runs of all relays with one workload in one round.
type group struct {
	workload string
	round    int
}

func groupOf(r stats.Run) group { return group{r.Workload, r.Round} }
func (s Step) group() group     { return group{s.Workload.Name, s.Round} }

// due returns the runs, by their numbers, of the round group that shall be repeated next, or none:
// of those that were repeated least often the one with the run that lost most to the host. Groups
// with a failed run are left as they are, so that the failure shows.
func due(runs []stats.Run, times map[group]int) (numbers []int) {
	failed := map[group]bool{}
	for _, run := range runs {
		if run.Error != "" {
			failed[groupOf(run)] = true
		}
	}
	var worst *stats.Run
	for i := range runs {
		run := &runs[i]
		g := groupOf(*run)
		if !run.Spoiled() || failed[g] {
			continue
		}
		if worst == nil || times[g] < times[groupOf(*worst)] || times[g] == times[groupOf(*worst)] && run.Stolen > worst.Stolen {
			worst = run
		}
	}
	for i := range runs {
		if worst != nil && groupOf(runs[i]) == groupOf(*worst) {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// repeat repeats round groups that the machine's host spoiled, while there is time.
func (d *Runner) repeat(ctx context.Context, p Plan, steps []Step, r *stats.Results) error {
	began, repeated := time.Now(), 0
	defer func() {
		if repeated > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("%s repeated in %v, as the host of this virtual machine had taken more than %.0f %% of the CPU time",
				units.Plural(repeated, "run"), time.Since(began).Round(time.Second), 100*stats.MaxSteal))
		}
	}()
	times := map[group]int{}
	for {
		numbers := due(r.Runs, times)
		var next []Step
		var before []stats.Run
		for _, i := range numbers {
			next = append(next, steps[i])
			before = append(before, r.Runs[i])
		}
		if len(numbers) == 0 || p.sum(next) > d.Again-time.Since(began) {
			return nil
		}
		times[next[0].group()]++
		again := d.runGroup(ctx, p, next, r.Settings.Rate, func(i int) {
			if d.Progress != nil {
				d.Progress(next[i], len(steps), len(steps), d.Again-time.Since(began))
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		repeated += len(again)
		if better(again, before) {
			for k, i := range numbers {
				r.Runs[i] = again[k]
			}
		}
	}
}

// better says whether a repeated round group replaces the one before.
func better(again, before []stats.Run) bool {
	return mostStolen(again) < mostStolen(before)
}

// mostStolen is the most that the host took of one of the runs, and more than all if one failed.
func mostStolen(runs []stats.Run) (most float64) {
	for _, run := range runs {
		if run.Error != "" {
			return 2
		}
		most = max(most, run.Stolen)
	}
	return most
}
