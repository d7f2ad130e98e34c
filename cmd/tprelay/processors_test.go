package main

import (
	"runtime"
	"testing"
)

func TestThereIsAProcessorMoreThanLoops(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for _, c := range []struct {
		environment               string
		processors, loops         int
		wantLoops, wantProcessors int
	}{
		{"", 2, 0, 2, 3}, // one loop per CPU
		{"", 2, 2, 2, 3},
		{"", 2, 4, 4, 5},
		{"", 4, 1, 1, 4}, // there is one
		{"2", 2, 0, 2, 2},
		{"2", 2, 3, 3, 2},
	} {
		t.Setenv("GOMAXPROCS", c.environment)
		runtime.GOMAXPROCS(c.processors)
		loops := spareProcessor(c.loops)
		if processors := runtime.GOMAXPROCS(0); loops != c.wantLoops || processors != c.wantProcessors {
			t.Errorf("%+v: %d loops, %d processors", c, loops, processors)
		}
	}
}
