package scenario

import (
	"fmt"
	"slices"

	"github.com/tprelay/tprelay/bench/units"
)

// light is a few requests per second.
type light struct{ rr }

const lightConnections = 10

func (light) About() About {
	return About{
		Name: "light", Title: "A light load", Loop: openLoop,
		How: fmt.Sprintf("A few requests per second over %d connections: the cost of a wake-up.", lightConnections),
	}
}

func (light) Workloads() (all []Workload) {
	for _, n := range []int{100, 1000} {
		all = append(all, Workload{
			Name: fmt.Sprintf("light-%d", n), Title: units.Plural(n, "request") + " per second", Connections: lightConnections, Rate: float64(n),
			Metrics: slices.Concat([]Metric{serviceDemand("µs/request"), machineDemand("µs/request")}, latency(P50, P99), []Metric{rate("requests/s"), errorCount()}),
		})
	}
	return all
}
