package rules

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inScratch calls fn on a thread of its own in a new, empty network namespace,
// where rules can be loaded to see how the tools list them, or whether the kernel
// takes them, without touching the host's. The thread, and with it the namespace,
// ends when fn returns.
func inScratch(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime then ends the thread instead of letting
		// another goroutine run in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("network namespace to compare rules in: %w; run as root or grant CAP_SYS_ADMIN", err)
			return
		}
		result <- fn()
	}()
	return <-result
}
