package bench

import (
	"fmt"
	"time"
)

// On a virtual machine the host may run something else for a while, and what is measured then is
// that. The kernel tells (see account.Stolen), so such runs are done again when all others are
// done: what disturbs lasts for seconds to minutes.

// muchStolen is the least share of the CPUs' time that spoils a run.
const muchStolen = 0.02

// spoiled gives the number of the run that lost most to the host, in which it took much, or -1;
// of those that were done again least often.
func (r *Results) spoiled() int {
	worst := -1
	for i, run := range r.Runs {
		if run.Error != "" || run.Stolen <= muchStolen {
			continue
		}
		if worst < 0 || run.again < r.Runs[worst].again || run.again == r.Runs[worst].again && run.Stolen > r.Runs[worst].Stolen {
			worst = i
		}
	}
	return worst
}

// better is what counts of a run that was done again: that of which less was stolen.
func (r *Run) better(again Run) {
	times := r.again + 1
	if again.Error == "" && again.Stolen < r.Stolen {
		*r = again
	}
	r.again = times
}

// noteAgain says what was done again, if anything was.
func (r *Results) noteAgain(runs int, took time.Duration) {
	if runs > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s took %v, as the machine's host had taken more than %.0f %% of its CPU time",
			plural(runs, "run")+" done again", took.Round(time.Second), 100*muchStolen))
	}
}

// stolen warns of runs in which the host took much all the same.
func (r *Results) stolen() (lines []string) {
	runs, most := 0, 0.0
	for _, run := range r.Runs {
		if run.Error == "" && run.Stolen > muchStolen {
			runs++
			most = max(most, run.Stolen)
		}
	}
	if runs == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the machine's host took more than %.0f %% of its CPU time in %d of %s, at most %.0f %%: figures that come of them mean little",
		100*muchStolen, runs, plural(len(r.Runs), "run"), 100*most)}
}
