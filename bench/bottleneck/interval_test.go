package bottleneck

import "testing"

// total is the number of bytes in all intervals.
func total(intervals []Interval) (bytes int64) {
	for _, i := range intervals {
		bytes += i.Bytes
	}
	return bytes
}

func TestMeanLeavesOutTheBeginningAndRemainders(t *testing.T) {
	intervals := []Interval{
		{0, 1.0001, 9_000_000}, {1.0001, 2, 1_000_000}, {2, 3.0002, 1_000_200}, {3.0002, 3.02, 500_000},
	}
	if got := MeanRate(intervals, 1); got < 7_999_000 || got > 8_001_000 {
		t.Errorf("mean %f", got)
	}
	if got := MeanRate(nil, 1); got != 0 {
		t.Errorf("mean of nothing %f", got)
	}
	if got := total(intervals); got != 11_500_200 {
		t.Errorf("total %d", got)
	}
}
