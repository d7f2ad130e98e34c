package ends

import (
	"testing"
	"time"
)

// parted is a window from 100 to 250 of which 100 to 120, 160 to 180 and 220 to 240 count.
func parted() span { return span{from: 100, to: 250, every: 60, part: 20, lead: 10} }

func TestPartsOfAWindowCount(t *testing.T) {
	var c counting
	c.begin(parted())
	for _, at := range []time.Duration{100, 119, 160, 179, 220, 239} {
		if !c.has(at) {
			t.Errorf("%d does not count", at)
		}
	}
	for _, at := range []time.Duration{0, 99, 120, 159, 180, 219, 240, 250, 280} {
		if c.has(at) {
			t.Errorf("%d counts", at)
		}
		c.arrive(at, 1)
	}
	c.arrive(165, 7)
	if n := c.count.Load(); n != 7 {
		t.Errorf("%d bytes, want 7", n)
	}
	parts := parted().parts()
	if len(parts) != 3 || parts[0].from != 100 || parts[0].to != 120 || parts[2].from != 220 || parts[2].to != 240 {
		t.Errorf("%+v", parts)
	}
}

func TestAWindowWithoutPartsIsOne(t *testing.T) {
	s := span{from: 100, to: 250}
	if parts := s.parts(); len(parts) != 1 || parts[0] != s {
		t.Errorf("%+v", parts)
	}
	for at, want := range map[time.Duration]bool{99: false, 100: true, 249: true, 250: false} {
		if _, ok := s.in(at); ok != want {
			t.Errorf("%d counts: %v", at, ok)
		}
	}
}

// A request that was under way while its client was stopped was answered, but who knows when.
func TestLatencyOverAPauseIsNotCounted(t *testing.T) {
	var c counting
	tally := newTally()
	c.replied(tally, 90, 105) // nobody counts yet
	c.begin(parted())
	for _, request := range [][2]time.Duration{{90, 105}, {150, 161}, {119, 162}, {149, 165}, {130, 140}} {
		c.replied(tally, request[0], request[1])
	}
	if tally.requests != 4 || tally.latency.TotalCount() != 2 {
		t.Errorf("%d requests and %d latencies, want 4 and 2", tally.requests, tally.latency.TotalCount())
	}
}
