package netlab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killInside kills every process in the namespaces of the hosts: what programs of
// the lab forked and left behind. Nothing else can be in there, as the
// namespaces have no name to enter them by. A process is held by a descriptor
// while we look at it, so that a reused number never hits a stranger. In a lab that
// was attached to, others run too, and it kills nothing.
func (lab *Lab) killInside() error {
	const limit = 5 * time.Second
	if lab.attached {
		return nil
	}
	inodes := map[uint64]bool{}
	for _, h := range lab.hosts() {
		inodes[h.inode] = true
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		found, err := killOnce(inodes)
		if err != nil {
			return err
		}
		// Once more after a find: it may have forked before it died.
		if len(found) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", found)
		}
	}
}

func killOnce(inodes map[uint64]bool) (found []int, err error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if pid == os.Getpid() || !inodes[netnsOf(pid)] {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone
		}
		if inodes[netnsOf(pid)] { // still, so it is the one that fd holds
			found = append(found, pid)
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return found, fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return found, nil
}

// processes returns the ids of all processes that can be seen.
func processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// netnsOf returns the inode of a process' network namespace, or 0 if that is
// not for us to know. A zombie has none.
func netnsOf(pid int) uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/net", &st) != nil {
		return 0
	}
	return st.Ino
}
