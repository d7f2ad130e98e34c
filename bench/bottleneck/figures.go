package bottleneck

import (
	"math"
	"slices"
	"sort"
)

// Figures are what came out of a transfer, by name; what there is not, or never came to
// be, is not in it.
type Figures map[string]float64

// Names of figures. The rates, and what is divided by them, leave out the beginning, see
// Skipped.
const (
	SenderRate     = "sender_bit_per_s"       // that the sender saw
	ArrivedRate    = "arrived_bit_per_s"      // that arrived
	Ratio          = "sender_of_arrived"      // the one by the other
	Settle         = "settle_s"               // time until the sender's rate stays within 10 % of the bottleneck
	Throughput     = "arrived_of_direct"      // what arrived, by what did without a relay
	DelayMedian    = "delay_ms_p50"           // one way
	DelayP99       = "delay_ms_p99"           //
	AddedMedian    = "added_delay_ms_p50"     // to that without a relay
	AddedP99       = "added_delay_ms_p99"     //
	InFlight       = "in_flight_bytes"        // the most that was sent and had not arrived
	ExcessInFlight = "excess_in_flight_bytes" // beyond that without a relay
	PendingMost    = "pending_bytes"          // in tprelay, at most
	Growth         = "growth_bytes"           // of the relay's memory
)

// figures are those that a transfer has by itself.
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
	timed := &m.Record
	if m.Timed != nil {
		timed = m.Timed
	}
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
	for _, sample := range slices.Concat(m.Samples, timed.Samples) {
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

// quantile is the least value that is not less than the part q of all, which are sorted.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

// against adds what a transfer adds to one without a relay.
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

// median is that of the rounds. A round in which it never came to be counts as the
// worst: if that is so in most of them, there is no median.
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
