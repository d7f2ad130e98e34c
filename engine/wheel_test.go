package engine

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestTicksRoundUp(t *testing.T) {
	for d, want := range map[time.Duration]uint32{-1: 0, 0: 0, 1: 1, tickLength: 1, tickLength + 1: 2, time.Minute: 600} {
		if n := ticks(d); n != want {
			t.Errorf("%v: %d ticks, want %d", d, n, want)
		}
	}
}

// TestTicksAreNoMoreThanTheWheelTells: a longer wait would be in the past.
func TestTicksAreNoMoreThanTheWheelTells(t *testing.T) {
	for _, d := range []time.Duration{1 << 30 * tickLength, 1 << 31 * tickLength, 1 << 32 * tickLength, math.MaxInt64} {
		if n := ticks(d); n != maxTicks {
			t.Errorf("%v: %d ticks, want %d", d, n, maxTicks)
		}
	}
}

// TestWheelAgainstModel arms, disarms and expires at random, and compares with a map.
func TestWheelAgainstModel(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var tab table
		var w wheel
		now := uint32(rnd.IntN(1000))
		if seed%2 == 0 {
			now = ^uint32(0) - 300 // across the wrap
		}
		w.tick = now
		due := map[*pair]uint32{}
		var pairs []*pair
		for range 40 {
			pairs = append(pairs, tab.take())
		}
		for range 2000 {
			p := pairs[rnd.IntN(len(pairs))]
			switch rnd.IntN(4) {
			case 0, 1:
				at := now + uint32(rnd.IntN(700))
				w.arm(&tab, p, at)
				if at == now {
					at++
				}
				due[p] = at
			case 2:
				w.disarm(&tab, p)
				delete(due, p)
			case 3:
				now += uint32(rnd.IntN(400))
				w.expire(&tab, now, func(p *pair) {
					at, ok := due[p]
					if !ok || int32(at-now) > 0 {
						t.Fatalf("seed %d: fired at %d, due %d (%v)", seed, now, at, ok)
					}
					delete(due, p)
				})
				for _, at := range due {
					if int32(at-now) <= 0 {
						t.Fatalf("seed %d: due %d, not fired at %d", seed, at, now)
					}
				}
			}
			if w.count != len(due) {
				t.Fatalf("seed %d: %d armed, want %d", seed, w.count, len(due))
			}
			next := w.wait()
			for _, at := range due {
				if next < 0 || int32(at-(w.tick+uint32(next))) < 0 {
					t.Fatalf("seed %d: would sleep %d ticks from %d, something is due at %d", seed, next, w.tick, at)
				}
			}
		}
	}
}

func BenchmarkWheel(b *testing.B) {
	var tab table
	var w wheel
	pairs := make([]*pair, 8000)
	for i := range pairs {
		pairs[i] = tab.take()
	}
	b.ReportAllocs()
	for i := range b.N {
		w.arm(&tab, pairs[i%len(pairs)], uint32(i%600))
	}
}
