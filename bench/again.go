package bench

import (
	"fmt"
	"time"
)

// On a virtual machine the host may run something else for a while, and what is measured then is
// that. The kernel tells (see procstat.Stolen). A heat with such a run is done again when all
// others are done, for what disturbs lasts for seconds to minutes; and all of it, since its runs
// are compared with each other, and the machine may be a faster one by then.

// heat is what is compared: the runs of all relays at one point in one round.
type heat struct {
	point string
	round int
}

func (r *Run) heat() heat { return heat{r.Point, r.Round} }
func (s Step) heat() heat { return heat{s.Point.Name, s.Round} }

// muchStolen is the least share of the CPUs' time that spoils a run, and its heat with it.
const muchStolen = 0.02

func (r *Run) spoiled() bool { return r.Error == "" && r.Stolen > muchStolen }

// enoughRounds that were not spoiled make those not count that were.
const enoughRounds = 3

// counting gives those values that count: the ones that the host left alone if they are enough,
// or else all.
func counting(all, spared []float64) []float64 {
	if len(spared) < enoughRounds {
		return all
	}
	return spared
}

// due gives the runs, by their numbers, of the heat that shall be done again next, or none: of
// those that were done again least often the one that lost most to the host in one run. Where
// a run failed, that stays to be seen.
func (r *Results) due(times map[heat]int) (runs []int) {
	failed := map[heat]bool{}
	for _, run := range r.Runs {
		if run.Error != "" {
			failed[run.heat()] = true
		}
	}
	var worst *Run
	for i := range r.Runs {
		run := &r.Runs[i]
		if !run.spoiled() || failed[run.heat()] {
			continue
		}
		if worst == nil || times[run.heat()] < times[worst.heat()] || times[run.heat()] == times[worst.heat()] && run.Stolen > worst.Stolen {
			worst = run
		}
	}
	for i := range r.Runs {
		if worst != nil && r.Runs[i].heat() == worst.heat() {
			runs = append(runs, i)
		}
	}
	return runs
}

// better says whether a heat that was done again counts, or what there was.
func better(again, before []Run) bool {
	return mostStolen(again) < mostStolen(before)
}

// mostStolen is the most that the host took of one of the runs, more than all if one failed.
func mostStolen(runs []Run) (most float64) {
	for _, run := range runs {
		if run.Error != "" {
			return 2
		}
		most = max(most, run.Stolen)
	}
	return most
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
		if run.spoiled() {
			runs++
			most = max(most, run.Stolen)
		}
	}
	if runs == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the machine's host took more than %.0f %% of its CPU time in %d of %s, at most %.0f %%: "+
		"they do not count where %d others are left, for a relay or for a ratio of two",
		100*muchStolen, runs, plural(len(r.Runs), "run"), 100*most, enoughRounds)}
}
