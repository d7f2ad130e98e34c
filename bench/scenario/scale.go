package scenario

import (
	"fmt"
	"slices"

	"github.com/tprelay/tprelay/bench/units"
)

// scale is the same rate of requests over more and more connections.
type scale struct{ rr }

// scaleRate is the rate in requests per second, see Workload.Calibrate.
const scaleRate = 20000

func (scale) About() About {
	return About{
		Name: "scale", Title: "The same work over more pairs", Loop: openLoop,
		How: units.Figure(scaleRate) + " requests/s in all, spread over more and more connections.",
	}
}

func (scale) Workloads() (all []Workload) {
	for _, n := range []int{10, 100, 1000, 8000} {
		all = append(all, Workload{
			Name: fmt.Sprintf("scale-%d", n), Title: units.Plural(n, "concurrent connection"), Connections: n, Rate: scaleRate, Calibrate: true,
			Metrics: slices.Concat([]Metric{serviceDemand("µs/request"), rate("requests/s")}, latency(P99), []Metric{errorCount()}),
		})
	}
	return all
}
