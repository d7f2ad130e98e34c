package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestHeapIsBoundUnlessTheOperatorSaysOtherwise(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "off")
	boundHeap(1 << 30)
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("%d, though GOMEMLIMIT was given", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	boundHeap(1 << 30)
	if got := debug.SetMemoryLimit(-1); got < 1<<30 || got > 1<<30*115/100 {
		t.Errorf("%d for a limit of %d", got, 1<<30)
	}
	boundHeap(math.MaxInt64)
	if got := debug.SetMemoryLimit(-1); got <= 0 {
		t.Errorf("%d for no limit", got)
	}
}
