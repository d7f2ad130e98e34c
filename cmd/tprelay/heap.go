package main

import (
	"math"
	"os"
	"runtime/debug"
)

// heapBase is the memory that Go needs besides buffers: records of some ten thousand pairs,
// stacks, and the runtime's own structures.
const heapBase = 16 << 20

// boundHeap sets Go's memory limit slightly above memoryLimit. Without it, the heap may grow to
// twice the buffered bytes before the garbage collector runs. GOMEMLIMIT in the environment
// takes precedence.
func boundHeap(memoryLimit int64) {
	if os.Getenv("GOMEMLIMIT") == "" && memoryLimit < math.MaxInt64/2 {
		debug.SetMemoryLimit(memoryLimit + memoryLimit/20 + heapBase)
	}
}
