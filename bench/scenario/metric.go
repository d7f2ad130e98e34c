package scenario

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// Metric is one figure of a workload.
type Metric struct {
	Name  string // in files: relay_cpu
	Title string // in tables, with the unit: service demand µs/request
	Unit  string
	// More is better; otherwise less is.
	More bool
	// Count: a number of events, added up over the rounds, and not compared.
	Count bool
	How   string // how it was measured
}

// The metrics by name, in all workloads that have them.
const (
	Throughput  = "throughput"
	Arrived     = "arrived"
	Rate        = "rate"
	P50         = "p50"
	P90         = "p90"
	P99         = "p99"
	P999        = "p999"
	RelayCPU    = "relay_cpu"
	MachineCPU  = "machine_cpu"
	Resident    = "resident"
	Descriptors = "descriptors"
	Growth      = "growth"
	Errors      = "errors"
)

// Parts of a second and of a byte count.
const (
	giga  = 1e9
	micro = 1e-6
	milli = 1e-3
)

func throughput() Metric {
	return Metric{Name: Throughput, Title: "throughput Gbit/s", Unit: "Gbit/s", More: true, How: "payload that arrived at the reader in the window"}
}

const howRelayCPU = "CPU time of the relay's processes in the window (schedstat of their threads), with the packets that the kernel " +
	"handled meanwhile in their name, and without those that it handled in others'"

// serviceDemand is the relay's CPU time per unit of work, such as "s/GB".
func serviceDemand(unit string) Metric {
	return Metric{Name: RelayCPU, Title: "service demand " + unit, Unit: unit, How: howRelayCPU}
}

// machineDemand is the same for the machine as a whole.
func machineDemand(unit string) Metric {
	return Metric{Name: MachineCPU, Title: "whole machine " + unit, Unit: unit,
		How: "CPU time of everything on the machine in the window, clients and servers too. All that the kernel does for packets is in it, so it shows what a relay saves or costs overall"}
}

func rate(unit string) Metric {
	return Metric{Name: Rate, Title: unit, Unit: unit, More: true, How: "answered in the window"}
}

// latency returns the quantiles of those names.
func latency(names ...string) (metrics []Metric) {
	for _, name := range names {
		metrics = append(metrics, Metric{Name: name, Title: quantileTitle(name) + " ms", Unit: "ms",
			How: "latency from before the request is written (open loop: from when it was due) to the last byte of the reply, of all requests answered in the window"})
	}
	return metrics
}

func quantileTitle(name string) string {
	if name == P999 {
		return "p99.9"
	}
	return name
}

func errorCount() Metric {
	return Metric{Name: Errors, Title: "errors", Unit: "errors", Count: true, How: "connections that failed, were reset or gave wrong bytes; the sum over the rounds"}
}

// perPair are the metrics of connections without traffic.
func perPair() []Metric {
	return []Metric{
		{Name: Resident, Title: "resident bytes/pair", Unit: "B/pair",
			How: "resident memory of the relay's processes with all pairs, each having moved a request and a reply, minus that just after the start with one connection made and closed; over the pairs"},
		{Name: Descriptors, Title: "descriptors/pair", Unit: "descriptors/pair", How: "entries of /proc/PID/fd, likewise"},
		errorCount(),
	}
}

// addCPU adds the CPU time per unit of work, in parts of a second such as 1e-6: the relay's and the
// machine's. units is the work done in the window. Without relay or work there is none.
func (f Figures) addCPU(tb *testbed.Testbed, m *testbed.Measured, units, part float64) {
	f.addUsage(tb, m.Used, units/m.Window.Seconds()*m.Used.At.Seconds(), part)
}

// addUsage does it for the work done while that was used.
func (f Figures) addUsage(tb *testbed.Testbed, used testbed.Usage, units, part float64) {
	if units <= 0 {
		return
	}
	if len(tb.Running.PIDs()) > 0 {
		f[RelayCPU] = used.Relay.Seconds() / units / part
	}
	f[MachineCPU] = used.Machine.Seconds() / units / part
}

// requests returns the figures of requests. due is how many there should have been per second, or
// 0.
func requests(tb *testbed.Testbed, m *testbed.Measured, r *worker.Result, due float64) (Figures, error) {
	if r.Requests == 0 {
		return nil, m.Nothing("no request was answered in the window")
	}
	f := Figures{Rate: float64(r.Requests) / m.Window.Seconds()}
	if r.Latency != nil {
		h := hdrhistogram.Import(r.Latency)
		for name, quantile := range map[string]float64{P50: 50, P90: 90, P99: 99, P999: 99.9} {
			f[name] = inMilliseconds(time.Duration(h.ValueAtQuantile(quantile)))
		}
	}
	f.addCPU(tb, m, float64(r.Requests), micro)
	n, _ := m.Errors()
	f[Errors] = float64(n)
	if got := f[Rate]; got < 0.97*due {
		tb.Warn("%s of %s requests/s were answered", units.Figure(got), units.Figure(due))
	}
	return f, nil
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
