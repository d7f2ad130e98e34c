package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

// TestConnectionToTheListenerWithoutDescriptors: to list its own addresses takes the relay
// a descriptor. When there is none, it must know itself all the same.
func TestConnectionToTheListenerWithoutDescriptors(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	log := filepath.Join(t.TempDir(), "access.log")
	d := startDaemon(t, lab.H2, nil, "--mode", "tproxy", "--spoof", "none", "--loops", "1",
		"--listen", fmt.Sprintf("[::]:%d", relayPort), "--access-log", log)

	// One descriptor is left: for the connection.
	var before unix.Rlimit
	if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	one := unix.Rlimit{Cur: uint64(firstFree(t, d.PID()) + 1), Max: before.Max}
	if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &one, nil); err != nil {
		t.Fatal(err)
	}
	c, err := lab.H1.Dial(within(t), "tcp", netip.AddrPortFrom(lab.H2.Addr4, relayPort).String())
	if err == nil {
		defer c.Close()
		// It is refused now; or later, when it could go on.
		c.SetDeadline(time.Now().Add(time.Second))
		if _, err = c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &before, nil); err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(2 * time.Second))
			_, err = c.Read(make([]byte, 1))
		}
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v, want connection reset", err)
	}
	if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // do not wait for what may never end
		if err := d.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case <-d.Done():
		case <-time.After(time.Second):
			continue
		}
		break
	}
	<-d.Done()
	if lines := readAccessLog(t, log); len(lines) != 1 || lines[0].Reason != "loop" {
		t.Errorf("%d pairs, the first %+v\n%s", len(lines), lines[:min(1, len(lines))], &d.said)
	}
}

// firstFree is the descriptor that a process would get next.
func firstFree(t *testing.T, pid int) (next int) {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	used := map[int]bool{}
	for _, name := range names {
		n, err := strconv.Atoi(name.Name())
		if err != nil {
			t.Fatal(err)
		}
		used[n] = true
	}
	for used[next] {
		next++
	}
	return next
}
