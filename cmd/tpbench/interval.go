package main

// interval is what one end moved in a piece of time, counted in seconds from the
// beginning of its connection.
type interval struct {
	Start float64 `json:"start"`
	End   float64 `json:"end"`
	Bytes int64   `json:"bytes"`
}

// rate is the interval's mean in bit/s.
func (i interval) rate() float64 {
	if i.End <= i.Start {
		return 0
	}
	return float64(i.Bytes) * 8 / (i.End - i.Start)
}

// shortest is the least length, in seconds, of an interval that counts for a mean.
// Programs end with a remainder of some milliseconds, in which a single block
// makes any rate.
const shortest = 0.5

// meanRate is the mean, in bit/s, of the intervals that begin at skip seconds or
// later.
func meanRate(intervals []interval, skip int) float64 {
	const slack = 0.1 // intervals do not begin at the full second exactly
	var sum interval
	for _, i := range intervals {
		if i.Start >= float64(skip)-slack && i.End-i.Start >= shortest {
			sum.End += i.End - i.Start
			sum.Bytes += i.Bytes
		}
	}
	return sum.rate()
}

// total is the number of bytes in all intervals.
func total(intervals []interval) (bytes int64) {
	for _, i := range intervals {
		bytes += i.Bytes
	}
	return bytes
}

// skipped is how many seconds at the beginning of a run are left out of its means:
// while buffers on the path fill, every sender is faster than the path.
func skipped(seconds int) int {
	if seconds >= 6 {
		return 2
	}
	return 1
}
