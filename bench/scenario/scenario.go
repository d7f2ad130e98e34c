// Package scenario is the kinds of traffic by which relays are compared: one file each, behind the
// interface [Scenario].
package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/bench/testbed"
)

// Scenario is a kind of traffic.
type Scenario interface {
	// About describes it.
	About() About
	// Workloads are the scenario with its numbers, in the order in which they are measured. [All]
	// fills in the fields Scenario, Request and Reply.
	Workloads() []Workload
	// Start starts the clients of a workload. What they do before the window does not count.
	Start(ctx context.Context, tb *testbed.Testbed, w Workload) error
	// Figures computes the figures of a window, one for each metric of the workload that the
	// relay has.
	Figures(tb *testbed.Testbed, w Workload, m *testbed.Measured) (Figures, error)
}

// About describes a scenario.
type About struct {
	Name  string // on the command line: rr
	Title string // Request and response
	// Loop says whether clients wait for the server before they send more (closed loop), or send
	// by a schedule (open loop).
	Loop string
	How  string // what happens, in a sentence or two
}

// The loops.
const (
	closedLoop = "closed loop"
	openLoop   = "open loop"
	noLoop     = "no load"
)

// Figures are what a run found, by the names of metrics.
type Figures map[string]float64

// All lists the scenarios in the order in which they are measured.
func All() []Scenario {
	return []Scenario{bulk{}, rr{}, light{}, cps{}, idle{}, slow{}, mixed{}, scale{}, many{}}
}

// Workloads lists those of all scenarios.
func Workloads() (all []Workload) {
	for _, s := range All() {
		for _, w := range s.Workloads() {
			w.Scenario = s
			if w.Request == 0 {
				w.Request = 128
			}
			if w.Reply == 0 {
				w.Reply = 128
			}
			all = append(all, w)
		}
	}
	return all
}

// Find returns the workload of that name.
func Find(name string) (Workload, bool) {
	all := Workloads()
	if i := slices.IndexFunc(all, func(w Workload) bool { return w.Name == name }); i >= 0 {
		return all[i], true
	}
	return Workload{}, false
}

// Choose returns the workloads of the scenarios, or of all if none is named; of these only those
// named in only, if any are. The error names what there is.
func Choose(scenarios, only []string) (chosen []Workload, err error) {
	var names, workloads []string
	for _, s := range All() {
		names = append(names, s.About().Name)
	}
	for _, w := range Workloads() {
		workloads = append(workloads, w.Name)
	}
	for _, name := range scenarios {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--scenarios %s: no such scenario; there are %s", name, strings.Join(names, ", "))
		}
	}
	for _, name := range only {
		if !slices.Contains(workloads, name) {
			return nil, fmt.Errorf("--only %s: no such workload; there are %s", name, strings.Join(workloads, ", "))
		}
	}
	for _, w := range Workloads() {
		if (len(scenarios) == 0 || slices.Contains(scenarios, w.Scenario.About().Name)) && (len(only) == 0 || slices.Contains(only, w.Name)) {
			chosen = append(chosen, w)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("--only %s: none of these is in --scenarios %s", strings.Join(only, ","), strings.Join(scenarios, ","))
	}
	return chosen, nil
}
