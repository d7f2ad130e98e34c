package main

import (
	"math"
	"os"
	"runtime/debug"
)

// heapBase is what Go needs beside buffers: records of some ten thousand pairs, stacks,
// its own structures.
const heapBase = 16 << 20

// boundHeap has the garbage collector work before the heap is larger than what may wait in
// buffers, instead of twice that. GOMEMLIMIT in the environment is the operator's
// word, and stays.
func boundHeap(memoryLimit int64) {
	if os.Getenv("GOMEMLIMIT") == "" && memoryLimit < math.MaxInt64/2 {
		debug.SetMemoryLimit(memoryLimit + memoryLimit/20 + heapBase)
	}
}
