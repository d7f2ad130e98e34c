package engine

import (
	"testing"

	"github.com/tprelay/tprelay/engine/internal/flowcontrol"
	"github.com/tprelay/tprelay/engine/internal/pump"
)

// TestThrottledDirectionIsWatchedAgainWhenItGoesOn: nothing else takes the throttle off.
func TestThrottledDirectionIsWatchedAgainWhenItGoesOn(t *testing.T) {
	for name, on := range map[string]func(*modelWorld) error{
		"stays":   func(w *modelWorld) error { w.stay(0); return nil },
		"arrives": func(w *modelWorld) error { return w.arrive(0) },
	} {
		t.Run(name, func(t *testing.T) {
			w, err := newModelWorld(Options{}, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(w.open([2]*behaviour{&behaviours[0], &behaviours[0]}, 0, false, 0))
			_, err = w.poll(100)
			must(err)
			w.tell()
			w.serve()
			p := w.find(w.pairs[0].ref)
			if !w.sampleSink(p, upstream) || !w.sampleSource(p, upstream) {
				t.Fatal("no TCP_INFO")
			}
			w.limit(p, upstream, flowcontrol.LimitsAt(1<<20, 0, &w.sink, &w.source, w.mostTuned()))
			w.observe(p, upstream, flowcontrol.AfterThrottle(&w.sink, w.millis()))
			if !p.dir[upstream].Is(pump.Throttled) {
				t.Fatal("not throttled")
			}
			must(w.leave(w.pairs[0]))
			w.throttle() // drops what is not open
			must(on(w))
			must(w.check())
			p = w.find(w.pairs[0].ref)
			for range 30 {
				w.pass(1)
				w.throttle()
			}
			if p.dir[upstream].Is(pump.Throttled) || p.dir[upstream].PendingLimit != 0 {
				t.Errorf("throttled for ever: %v, %d", &p.dir[upstream], p.dir[upstream].PendingLimit)
			}
			must(w.check())
		})
	}
}
