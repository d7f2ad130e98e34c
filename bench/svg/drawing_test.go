package svg

import (
	"math"
	"slices"
	"testing"
)

func TestTicksAreRoundAndWithin(t *testing.T) {
	for _, c := range []struct {
		scale Scale
		want  []float64
	}{
		{Scale{From: 0, To: 1.3}, []float64{0, 0.5, 1}},
		{Scale{From: 0, To: 47000}, []float64{0, 10000, 20000, 30000, 40000}},
		{Scale{From: 0, To: 0.05}, []float64{0, 0.01, 0.02, 0.03, 0.04, 0.05}},
		{Scale{From: 0.9, To: 1.6, Logarithms: true}, []float64{1}},
		{Scale{From: 3, To: 70, Logarithms: true}, []float64{5, 10, 20, 50}},
		{Scale{From: 0.02, To: 300, Logarithms: true}, []float64{0.1, 1, 10, 100}},
	} {
		near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(a, b) }
		if got := c.scale.Ticks(); !slices.EqualFunc(got, c.want, near) {
			t.Errorf("%+v: %v, want %v", c.scale, got, c.want)
		}
	}
}

func TestScaleMapsItsEndsToItsPixels(t *testing.T) {
	for _, s := range []Scale{
		{From: 0, To: 1.3, Low: 200, High: 0}, {From: 2, To: 300, Low: 10, High: 90, Logarithms: true},
	} {
		middle := (s.From + s.To) / 2
		if s.Logarithms {
			middle = math.Sqrt(s.From * s.To)
		}
		for v, want := range map[float64]float64{s.From: s.Low, s.To: s.High, middle: (s.Low + s.High) / 2} {
			if at := s.At(v); at != want {
				t.Errorf("%+v: %g is at %g, want %g", s, v, at, want)
			}
		}
	}
}
