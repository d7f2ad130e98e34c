package relays

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// awaitListeners waits until the process, or one that it started, listens on all of its ports. The
// listeners of other processes do not count: several processes of a relay may share a port.
func awaitListeners(ctx context.Context, host *netlab.Host, cmd *netlab.Cmd, ports []uint16) error {
	for {
		ready := true
		for _, port := range ports {
			sockets, err := host.Listeners(port)
			if err != nil {
				return fmt.Errorf("wait for a listener on port %d: %w", port, err)
			}
			ready = ready && slices.ContainsFunc(family(cmd.PID()), func(pid int) bool { return holds(pid, sockets) })
		}
		if ready {
			return nil
		}
		select {
		case <-cmd.Done():
			if err := cmd.Wait(); err != nil {
				return err
			}
			return fmt.Errorf("%s ended before it listened on port %d", cmd.Args[0], ports[0])
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen on port %d: %w", cmd.Args[0], ports[0], ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// holds says whether the process has one of these sockets open.
func holds(pid int, inodes []uint32) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		to, _ := os.Readlink(dir + e.Name()) // empty if it is closed already
		var inode uint32
		_, err := fmt.Sscanf(to, "socket:[%d]", &inode)
		return err == nil && slices.Contains(inodes, inode)
	})
}

// family is the process and its descendants, as far as their parents live. It is empty when the
// process has ended.
func family(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := []int{pid}
	for _, t := range threads {
		b, err := os.ReadFile(dir + t.Name() + "/children")
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, family(n)...)
			}
		}
	}
	return all
}
