package svg

import "testing"

func TestTicksAreRoundAndWithin(t *testing.T) {
	for _, s := range []Scale{{From: 0, To: 1.3}, {From: 0, To: 47000}, {From: 0.02, To: 300, Logarithms: true}, {From: 0.9, To: 1.6, Logarithms: true}} {
		s.Low, s.High = 200, 0
		ticks := s.Ticks()
		if len(ticks) == 0 || len(ticks) > 16 {
			t.Errorf("%+v: %v", s, ticks)
		}
		for _, v := range ticks {
			if at := s.At(v); at < -1 || at > 201 {
				t.Errorf("%+v: %g is at %g", s, v, at)
			}
		}
	}
}
