package main

import (
	"os"
	"runtime"
)

// spareProcessor raises GOMAXPROCS to one more than the number of loops, which it returns. A loop
// may then keep its processor (a P of package runtime) while it waits, as epoll.Poller.HoldP
// explains, and the admin server, signals and the access log still have one. GOMAXPROCS in the
// environment takes precedence.
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
