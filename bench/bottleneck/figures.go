package bottleneck

import (
	"math"
	"slices"
	"sort"

	"golang.org/x/perf/benchmath"
)

// Figures are the results of a transfer, by name. Figures without a value are left out.
type Figures map[string]float64

// Names of figures. Rates and ratios leave out the beginning, see [Skipped].
const (
	SenderRate     = "sender_bit_per_s"       // at which the sender's socket took bytes
	ArrivedRate    = "arrived_bit_per_s"      // at which they arrived
	Ratio          = "sender_of_arrived"      // the first by the second
	Settle         = "settle_s"               // time until the sender's rate stays within 10 % of the bottleneck
	Throughput     = "arrived_of_direct"      // arrived rate by that without a relay
	DelayMedian    = "delay_ms_p50"           // one way
	DelayP99       = "delay_ms_p99"           //
	AddedMedian    = "added_delay_ms_p50"     // beyond that without a relay
	AddedP99       = "added_delay_ms_p99"     //
	InFlight       = "in_flight_bytes"        // the most that was sent and had not arrived
	ExcessInFlight = "excess_in_flight_bytes" // beyond that without a relay
	PendingMost    = "pending_bytes"          // the most in tprelay
	Growth         = "growth_bytes"           // of the relay's memory
)

// figures computes those that need no other transfer.
func (s *Setup) figures(m *Measured) Figures {
	f := Figures{}
	sent, arrived := m.Sent(), m.Arrived()
	skip := float64(Skipped(int(s.Length.Seconds())))
	f[SenderRate], f[ArrivedRate] = MeanRate(sent, skip), MeanRate(arrived, skip)
	if f[ArrivedRate] > 0 {
		f[Ratio] = f[SenderRate] / f[ArrivedRate]
	}
	if at, ok := Settled(sent, s.target()); ok {
		f[Settle] = at
	}
	f[InFlight] = float64(MostInFlight(sent, arrived))
	timed := m.timed()
	var took []float64
	for _, d := range timed.delays {
		if d.at >= skip {
			took = append(took, d.took*1000)
		}
	}
	if len(took) > 0 {
		sort.Float64s(took)
		f[DelayMedian], f[DelayP99] = quantile(took, 0.5), quantile(took, 0.99)
	}
	for _, sample := range timed.Samples {
		if sample.Relay != nil {
			f[PendingMost] = max(f[PendingMost], float64(sample.Relay.Pending))
		}
	}
	for _, sample := range m.Samples {
		if m.Resident > 0 {
			f[Growth] = max(f[Growth], float64(sample.Memory-m.Resident))
		}
	}
	return f
}

// quantile returns the smallest of the sorted values that is not less than the share q of them.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

// against adds the figures that compare with a transfer without a relay.
func (f Figures) against(direct Figures) {
	for name, of := range map[string]string{AddedMedian: DelayMedian, AddedP99: DelayP99, ExcessInFlight: InFlight} {
		own, ok := f[of]
		base, there := direct[of]
		if ok && there {
			f[name] = own - base
		}
	}
	if direct[ArrivedRate] > 0 {
		f[Throughput] = f[ArrivedRate] / direct[ArrivedRate]
	}
}

// roundsForSpread is how many rounds it takes to say anything about a median with a
// confidence of 95 %, whatever the distribution.
const roundsForSpread = 6

// spread is how far the 95 % confidence interval reaches from the median, as a share of it. It
// is 0 if that is unknown.
func spread(name string, rounds []Figures) float64 {
	var values []float64
	for _, f := range rounds {
		v, ok := f[name]
		if !ok {
			return 0
		}
		values = append(values, v)
	}
	if len(values) < roundsForSpread {
		return 0
	}
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0.95)
	if s.Center == 0 {
		return 0
	}
	return max(s.Center-s.Lo, s.Hi-s.Center) / math.Abs(s.Center)
}

// median returns the median of the rounds. A round without a value counts as the worst one. If
// most of them have none, there is no median.
func median(name string, rounds []Figures) (float64, bool) {
	var values []float64
	for _, f := range rounds {
		if v, ok := f[name]; ok {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	n := len(rounds)
	switch middle := n / 2; {
	case n == 0 || len(values) <= middle:
		return 0, false
	case n%2 == 1:
		return values[middle], true
	default:
		return (values[middle-1] + values[middle]) / 2, true
	}
}
