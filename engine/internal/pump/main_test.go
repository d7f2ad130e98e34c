package pump

import (
	"fmt"
	"os"
	"testing"
)

// TestMain ends with a count: no test may leave a descriptor.
func TestMain(m *testing.M) {
	if r, w, err := os.Pipe(); err == nil { // with the first pipe the runtime opens its own poller
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	if now := descriptors(); code == 0 && now > before {
		fmt.Fprintf(os.Stderr, "%d descriptors are open, %d were before\n", now, before)
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}
