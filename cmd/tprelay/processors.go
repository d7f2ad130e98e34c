package main

import (
	"os"
	"runtime"
)

// spareProcessor lets Go run on one processor (a P of package runtime; its threads share the CPUs
// that there are) more than there are loops. So a loop may keep its own while it waits, as
// epoll.Poller.HoldP explains, and the admin end, signals and the access log have one all the same.
// It gives the number of loops. GOMAXPROCS in the environment is the operator's word, and stays.
func spareProcessor(loops int) int {
	processors := runtime.GOMAXPROCS(0)
	if loops == 0 {
		loops = processors
	}
	if os.Getenv("GOMAXPROCS") == "" && processors <= loops {
		runtime.GOMAXPROCS(loops + 1)
	}
	return loops
}
