package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
)

// Plan is what is to be measured.
type Plan struct {
	Relays []Contestant
	Points []Point
	// Named: the relays were named, so all of them are measured at all points.
	Named  bool
	Rounds int
	// TargetRounds are those of relays at points where a target compares them, 0 for Rounds.
	TargetRounds int
	WarmUp       time.Duration
	Window       time.Duration

	targets bool // only what the project's targets are about
}

// ForTargets gives the part of the plan that the project's targets are about.
func (p Plan) ForTargets() Plan {
	p.targets = true
	p.Relays = slices.DeleteFunc(slices.Clone(p.Relays), func(c Contestant) bool {
		return !slices.ContainsFunc(p.Points, func(point Point) bool { return forTargets(point.Name, c.Relay.Name) })
	})
	p.Points = slices.DeleteFunc(slices.Clone(p.Points), func(point Point) bool { return len(p.at(point)) == 0 })
	return p
}

// Contestant is a relay in a plan.
type Contestant struct {
	Name string // unique in the plan
	relays.Relay
}

// Step is one run of a plan.
type Step struct {
	Round int // from 1
	Point Point
	Relay Contestant
}

// Steps gives the runs in their order: in each round point after point, and at each point relay
// after relay. The order of relays is drawn for each round, so that none always comes after the
// same other one, whose traces the scheduler and the caches still have; plans that are the same
// have the same orders.
func (p Plan) Steps() (steps []Step) {
	orders := rand.New(rand.NewPCG(1, 1))
	for round := range max(p.Rounds, p.TargetRounds) {
		for _, point := range p.Points {
			relays := slices.DeleteFunc(p.at(point), func(c Contestant) bool { return round >= p.rounds(point, c) })
			for _, i := range orders.Perm(len(relays)) {
				steps = append(steps, Step{round + 1, point, relays[i]})
			}
		}
	}
	return steps
}

// rounds is how often the relay is measured at the point.
func (p Plan) rounds(point Point, c Contestant) int {
	if p.TargetRounds > 0 && compared(point.Name, c.Relay.Name) {
		return p.TargetRounds
	}
	return p.Rounds
}

// at gives the relays that are measured at the point.
func (p Plan) at(point Point) (relays []Contestant) {
	for _, c := range p.Relays {
		if p.targets && !forTargets(point.Name, c.Relay.Name) {
			continue
		}
		if point.takes(c.Relay.Name) && (p.Named || point.Principal || !variant(c.Relay.Name)) {
			relays = append(relays, c)
		}
	}
	return relays
}

// Estimate is how long a step will take, about.
func (p Plan) Estimate(s Step) time.Duration {
	d := s.Point.setUp() + p.WarmUp
	switch s.Point.Scenario {
	case "idle", "many":
		return d // what stands needs no window
	}
	if s.Point.inTurns() {
		pace := s.Point.pace()
		n, _ := pace.turns(len(p.at(s.Point)), p.Window)
		d += lead + time.Duration(n)*pace.slot(0)
	}
	return d + p.Window
}

// Total is how long the whole plan will take, about.
func (p Plan) Total() (sum time.Duration) {
	return p.sum(p.Steps())
}

// sum is how long some steps of it will take.
func (p Plan) sum(steps []Step) (sum time.Duration) {
	for _, s := range steps {
		sum += p.Estimate(s)
	}
	return sum
}

// DefaultRelays are measured when none are named: those that are no variants first.
func DefaultRelays() []string {
	return []string{"direct", "tprelay", "tprelay-loops", "tprelay-buffered", "haproxy", "haproxy-2threads", "haproxy-copy", "iocopy", "iocopy-nosplice"}
}

// variant says whether a relay is another one in another setting.
func variant(name string) bool {
	switch name {
	case "tprelay-loops", "tprelay-buffered", "haproxy-2threads", "haproxy-copy", "iocopy-nosplice":
		return true
	}
	return false
}

// ChooseRelays gives the relays of those names, "all" for all that there are, and the
// default ones for none. A name that comes twice gets a number the second time.
func ChooseRelays(names []string, command string) (chosen []Contestant, err error) {
	if len(names) == 0 {
		names = DefaultRelays()
		if command != "" {
			names = append(names, "command")
		}
	}
	if slices.Contains(names, "all") {
		names = nil
		for _, p := range relays.All(command) {
			names = append(names, p.Name)
		}
	}
	times := map[string]int{}
	for _, name := range names {
		peer, err := relays.Find(name, command)
		if err != nil {
			return nil, err
		}
		times[name]++
		if n := times[name]; n > 1 {
			name = fmt.Sprintf("%s#%d", name, n)
		}
		chosen = append(chosen, Contestant{name, peer})
	}
	return chosen, nil
}

// ChoosePoints gives the points of the scenarios, or of all for none; of these only
// those named in only, if any are. The error names what there is.
func ChoosePoints(scenarios, only []string) ([]Point, error) {
	known := func(names []string, has func(string) bool, flag, what string, all []string) error {
		for _, name := range names {
			if !has(name) {
				return fmt.Errorf("%s %s: no such %s; there are %s", flag, name, what, strings.Join(all, ", "))
			}
		}
		return nil
	}
	var names, points []string
	for _, s := range Scenarios() {
		names = append(names, s.Name)
	}
	for _, p := range Points() {
		points = append(points, p.Name)
	}
	if err := known(scenarios, func(n string) bool { return slices.Contains(names, n) }, "--scenarios", "scenario", names); err != nil {
		return nil, err
	}
	if err := known(only, func(n string) bool { return slices.Contains(points, n) }, "--only", "point", points); err != nil {
		return nil, err
	}
	var chosen []Point
	for _, p := range Points() {
		if (len(scenarios) == 0 || slices.Contains(scenarios, p.Scenario)) && (len(only) == 0 || slices.Contains(only, p.Name)) {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("--only %s: none of these is in --scenarios %s", strings.Join(only, ","), strings.Join(scenarios, ","))
	}
	return chosen, nil
}
