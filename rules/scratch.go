package rules

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inScratch calls fn on its own thread in a new, empty network namespace. Rules can be loaded
// there to see how the tools list them, or whether the kernel accepts them, without changing
// the host. The thread and the namespace end when fn returns.
func inScratch(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime then ends the thread, so that no other goroutine runs in
		// the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("scratch network namespace: %w; run as root or grant CAP_SYS_ADMIN", err)
			return
		}
		result <- fn()
	}()
	return <-result
}
