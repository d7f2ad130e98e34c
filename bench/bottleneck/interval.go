package bottleneck

import "slices"

// Interval is what one end moved in a piece of time, counted in seconds from the
// beginning of its connection, or of the measurement.
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
// An interval of less than half the usual length does not count: programs end with
// a remainder of some milliseconds, in which a single block makes any rate.
func MeanRate(intervals []Interval, skip float64) float64 {
	usual := usualLength(intervals)
	slack := usual / 10 // intervals do not begin at the full second exactly
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

// Total is the number of bytes in all intervals.
func Total(intervals []Interval) (bytes int64) {
	for _, i := range intervals {
		bytes += i.Bytes
	}
	return bytes
}

// Skipped is how many seconds at the beginning of a run are left out of its means:
// while buffers on the path fill, every sender is faster than the path.
func Skipped(seconds int) int {
	if seconds >= 6 {
		return 2
	}
	return 1
}

// settling is over how many seconds a rate is taken, for the time until it is right,
// and tolerance how far it may be off.
const (
	settling  = 1.0
	tolerance = 0.1
)

// Settled is the settle time: the seconds after which the rate keeps to target, in bit/s, within
// 10 %: the mean over the second that follows does, and the mean over all that follows.
// (A rate that falls through the target on its way to nothing is not there yet.) With
// a target of 0, the time after which nothing moved. It never came to that if ok is
// false.
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

// MostInFlight is the most that was in flight at any time, in bytes: sent and not yet
// arrived. Both count from the same moment, in intervals of the same
// length.
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
