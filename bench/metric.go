package bench

import (
	"math"
	"strconv"

	"github.com/tprelay/tprelay/bench/svg"
)

// Metric is one figure of a point.
type Metric struct {
	Name  string // in files: relay_cpu
	Title string // in tables, with the unit: relay CPU µs/request
	Unit  string
	// More is better; otherwise less is.
	More bool
	// Count: a number of events, added up over the rounds, and not compared.
	Count bool
	How   string // how it was measured
}

// The metrics by name, in all points that have them.
const (
	throughput  = "throughput"
	arrived     = "arrived"
	rate        = "rate"
	p50         = "p50"
	p90         = "p90"
	p99         = "p99"
	p999        = "p999"
	relayCPU    = "relay_cpu"
	machineCPU  = "machine_cpu"
	resident    = "resident"
	descriptors = "descriptors"
	growth      = "growth"
	errorCount  = "errors"
)

const (
	howRelayCPU = "CPU time of the relay's processes in the window (schedstat of their threads), which contains the packets that " +
		"the kernel handled meanwhile in their name, and not those that it handled in others'"
	howMachineCPU = "CPU time of everything on the machine in the window, clients and servers too; what the kernel does for packets is in " +
		"it in any case, so it shows what a relay saves or costs on the whole"
	howLatency = "from before the request is written (open loop: from when it was due) to the last byte of the reply, " +
		"all requests answered in the window"
	howErrors = "connections that failed, were reset or gave wrong bytes; the sum over the rounds"
)

func throughputMetric() Metric {
	return Metric{Name: throughput, Title: "Gbit/s", Unit: "Gbit/s", More: true, How: "payload that arrived at the reader in the window"}
}

// cpuMetrics are the CPU time per unit of work, such as "s/GB".
func cpuMetrics(unit string) []Metric {
	return []Metric{
		{Name: relayCPU, Title: "relay CPU " + unit, Unit: unit, How: howRelayCPU},
		{Name: machineCPU, Title: "machine CPU " + unit, Unit: unit, How: howMachineCPU},
	}
}

func rateMetric(unit string) Metric {
	return Metric{Name: rate, Title: unit, Unit: unit, More: true, How: "answered in the window"}
}

// latencyMetrics are the quantiles of those names.
func latencyMetrics(names ...string) (metrics []Metric) {
	for _, name := range names {
		metrics = append(metrics, Metric{Name: name, Title: quantileTitle(name) + " ms", Unit: "ms", How: howLatency})
	}
	return metrics
}

func quantileTitle(name string) string {
	if name == p999 {
		return "p99.9"
	}
	return name
}

func errorMetric() Metric {
	return Metric{Name: errorCount, Title: "errors", Unit: "errors", Count: true, How: howErrors}
}

// pairMetrics are what a pair that only stands costs.
func pairMetrics() []Metric {
	return []Metric{
		{Name: resident, Title: "resident bytes/pair", Unit: "B/pair",
			How: "resident memory of the relay's processes with all pairs, each having moved a request and a reply, minus that just after the start with one connection made and closed; over the pairs"},
		{Name: descriptors, Title: "descriptors/pair", Unit: "per pair", How: "entries of /proc/PID/fd, likewise"},
		errorMetric(),
	}
}

// number gives a figure with at least three digits that count, thousands apart.
func number(x float64) string {
	switch a := math.Abs(x); {
	case a == 0:
		return "0"
	case a >= 100:
		return svg.Thousands(strconv.FormatFloat(x, 'f', 0, 64))
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case a >= 0.0005:
		return strconv.FormatFloat(x, 'f', 3, 64)
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}
