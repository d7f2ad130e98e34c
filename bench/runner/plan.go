package runner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/testbed"
)

// Plan is what is to be measured.
type Plan struct {
	Candidates []Candidate
	Workloads  []scenario.Workload
	// Named: the relays were named, so all of them are measured with all workloads.
	Named bool
	// Only, if not nil, says which relays are measured with which workloads.
	Only func(workload, relay string) bool
	// Rounds of each workload, and RoundsAt of those that have others.
	Rounds   int
	RoundsAt map[string]int
	WarmUp   time.Duration
	Window   time.Duration
}

// Candidate is a relay in a plan.
type Candidate struct {
	Name string // unique in the plan
	relays.Relay
}

// Step is one run of a plan.
type Step struct {
	Round     int // from 1
	Workload  scenario.Workload
	Candidate Candidate
}

// Steps returns the runs in their order: in each round workload after workload, and with each
// workload relay after relay. The order of relays is drawn for each round, so that none always
// follows the same other one, whose traces the scheduler and the caches still have. Equal plans
// have equal orders.
func (p Plan) Steps() (steps []Step) {
	orders := rand.New(rand.NewPCG(1, 1))
	most := p.Rounds
	for _, n := range p.RoundsAt {
		most = max(most, n)
	}
	for round := range most {
		for _, w := range p.Workloads {
			if round >= p.rounds(w) {
				continue
			}
			candidates := p.At(w)
			for _, i := range orders.Perm(len(candidates)) {
				steps = append(steps, Step{round + 1, w, candidates[i]})
			}
		}
	}
	return steps
}

// rounds is how often a workload is measured.
func (p Plan) rounds(w scenario.Workload) int {
	if n, ok := p.RoundsAt[w.Name]; ok {
		return n
	}
	return p.Rounds
}

// FewerAtRest lowers the rounds of workloads in which only memory and descriptors are measured:
// these hardly vary.
func (p *Plan) FewerAtRest() {
	const enough = 3
	p.RoundsAt = map[string]int{}
	for _, w := range p.Workloads {
		if w.AtRest && p.Rounds > enough {
			p.RoundsAt[w.Name] = enough
		}
	}
}

// At returns the relays that are measured with the workload.
func (p Plan) At(w scenario.Workload) (candidates []Candidate) {
	for _, c := range p.Candidates {
		name := c.Relay.Name
		switch {
		case p.Only != nil && !p.Only(w.Name, name):
		case w.Only != nil && !slices.Contains(w.Only, name):
		case p.Named || w.Principal || !c.Variant:
			candidates = append(candidates, c)
		}
	}
	return candidates
}

// Restrict leaves out of the plan what only rejects.
func (p Plan) Restrict(only func(workload, relay string) bool) Plan {
	p.Only = only
	p.Workloads = slices.DeleteFunc(slices.Clone(p.Workloads), func(w scenario.Workload) bool { return len(p.At(w)) == 0 })
	p.Candidates = slices.DeleteFunc(slices.Clone(p.Candidates), func(c Candidate) bool {
		return !slices.ContainsFunc(p.Workloads, func(w scenario.Workload) bool { return only(w.Name, c.Relay.Name) })
	})
	return p
}

// Estimate is about how long a step will take, as seen on two cores.
func (p Plan) Estimate(s Step) time.Duration {
	w := s.Workload
	d := 300*time.Millisecond + time.Duration(w.Connections)*250*time.Microsecond + w.SetUp + p.WarmUp
	if w.AtRest {
		return d
	}
	if w.Turns != nil {
		n, _ := turns(w.Turns, len(p.At(w)), p.Window)
		d += testbed.SettleTime + time.Duration(n)*slot(w.Turns, 0)
	}
	return d + p.Window
}

// Total is about how long the whole plan will take.
func (p Plan) Total() time.Duration { return p.sum(p.Steps()) }

// sum is about how long some steps of it will take.
func (p Plan) sum(steps []Step) (sum time.Duration) {
	for _, s := range steps {
		sum += p.Estimate(s)
	}
	return sum
}

// Choose returns the relays of those names, "all" for all that there are, and the default ones for
// none. A name that comes twice gets a number the second time.
func Choose(names []string, command string) (chosen []Candidate, err error) {
	all := relays.All(command)
	if len(names) == 0 || slices.Contains(names, "all") {
		everything := slices.Contains(names, "all")
		names = nil
		for _, r := range all {
			if everything || r.Default {
				names = append(names, r.Name)
			}
		}
	}
	times := map[string]int{}
	for _, name := range names {
		relay, err := all.Find(name)
		if err != nil {
			return nil, err
		}
		times[name]++
		if n := times[name]; n > 1 {
			name = fmt.Sprintf("%s#%d", name, n)
		}
		chosen = append(chosen, Candidate{name, relay})
	}
	return chosen, nil
}
