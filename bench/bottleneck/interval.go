package bottleneck

import "slices"

// Interval is what one end moved from Start to End, in seconds since the beginning of the
// transfer.
type Interval struct {
	Start float64 `json:"start"`
	End   float64 `json:"end"`
	Bytes int64   `json:"bytes"`
}

// Rate is the interval's mean in bit/s.
func (i Interval) Rate() float64 {
	if i.End <= i.Start {
		return 0
	}
	return float64(i.Bytes) * 8 / (i.End - i.Start)
}

// MeanRate is the mean, in bit/s, of the intervals that begin at skip seconds or later.
// Intervals of less than half the usual length do not count: in the last milliseconds of a
// transfer, a single block makes any rate.
func MeanRate(intervals []Interval, skip float64) float64 {
	usual := usualLength(intervals)
	slack := usual / 10 // intervals do not begin exactly at the full second
	var sum Interval
	for _, i := range intervals {
		if i.Start >= skip-slack && i.End-i.Start >= usual/2 {
			sum.End += i.End - i.Start
			sum.Bytes += i.Bytes
		}
	}
	return sum.Rate()
}

// usualLength is the median of the intervals' lengths in seconds.
func usualLength(intervals []Interval) float64 {
	if len(intervals) == 0 {
		return 0
	}
	var lengths []float64
	for _, i := range intervals {
		lengths = append(lengths, i.End-i.Start)
	}
	slices.Sort(lengths)
	return lengths[len(lengths)/2]
}

// Skipped is how many seconds at the beginning of a run are left out of its means:
// while buffers on the path fill, every sender is faster than the path.
func Skipped(seconds int) int {
	if seconds >= 6 {
		return 2
	}
	return 1
}

// For the settle time, a rate is the mean of settling seconds, and may be off by tolerance.
const (
	settling  = 1.0
	tolerance = 0.1
)

// Settled returns the settle time: the seconds after which the rate stays within 10 % of
// target, in bit/s. The mean of the next second does, and the mean of all that follows, as a
// rate may also fall through the target on its way to zero. With a target of 0, it is the
// time after which nothing moved. If ok is false, the rate never settled.
func Settled(intervals []Interval, target float64) (at float64, ok bool) {
	if len(intervals) == 0 {
		return 0, false
	}
	end := intervals[len(intervals)-1].End
	slack := usualLength(intervals) / 5
	if target <= 0 {
		for _, i := range slices.Backward(intervals) {
			if i.Bytes > 0 {
				return i.End, end-i.End >= settling-slack
			}
		}
		return 0, true
	}
	near := func(part []Interval) bool {
		rate := MeanRate(part, 0)
		return rate >= target*(1-tolerance) && rate <= target*(1+tolerance)
	}
	for n, i := range intervals {
		if i.Start+settling > end+slack {
			break
		}
		m := n
		for m < len(intervals) && intervals[m].End <= i.Start+settling+slack {
			m++
		}
		if near(intervals[n:m]) && near(intervals[n:]) {
			return i.Start, true
		}
	}
	return 0, false
}

// MostInFlight is the largest number of bytes in flight at any time: sent and not yet
// arrived. Both slices have the same intervals.
func MostInFlight(sent, arrived []Interval) (most int64) {
	var out, there int64
	for n, s := range sent {
		out += s.Bytes
		if n < len(arrived) {
			there += arrived[n].Bytes
		}
		most = max(most, out-there)
	}
	return most
}
