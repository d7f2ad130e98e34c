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

// awaitListeners waits until the process, or one that it started, listens on all
// of its ports. Somebody else's listener does not count: several processes of a
// relay may share a port.
func awaitListeners(ctx context.Context, host *netlab.Host, cmd *netlab.Cmd, ports []uint16) error {
	for {
		ready := true
		for _, port := range ports {
			sockets, err := listeners(host, port)
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

// listeners gives the sockets that listen on the port, as /proc/PID/fd names
// them. The kernel's table has lines like "0: 0100007F:1F90 00000000:0000 0A ...":
// state 0A is LISTEN, and the tenth field is the socket's inode.
func listeners(host *netlab.Host, port uint16) (sockets []string, err error) {
	suffix := fmt.Sprintf(":%04X", port)
	err = host.Do(func() error {
		for _, table := range []string{"tcp", "tcp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + table)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], suffix) {
					sockets = append(sockets, "socket:["+f[9]+"]")
				}
			}
		}
		return nil
	})
	return sockets, err
}

// holds says whether the process has one of these sockets open.
func holds(pid int, sockets []string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		to, err := os.Readlink(dir + e.Name())
		return err == nil && slices.Contains(sockets, to)
	})
}

// family is the process and all that descend from it, as far as their parents
// live. It is empty when the process is gone.
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
