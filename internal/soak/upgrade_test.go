package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is the relay's program: the one that we started, or one that took over from it.
type process interface {
	PID() int
	Signal(os.Signal) error
	Done() <-chan struct{}
	Wait() error
}

// heir is a process that took over. It is nobody's child by now, so that nothing is known of
// its end but that it has come.
type heir struct {
	pid, fd int // pidfd
	done    chan struct{}
}

func newHeir(pid int) (*heir, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d, which took over: %w", pid, err)
	}
	h := &heir{pid, fd, make(chan struct{})}
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if err != unix.EINTR {
				break
			}
		}
		close(h.done)
	}()
	return h, nil
}

// PID is the process's number.
func (h *heir) PID() int { return h.pid }

// Signal sends s to the process, and to no other that has its number now.
func (h *heir) Signal(s os.Signal) error {
	return unix.PidfdSendSignal(h.fd, s.(unix.Signal), nil, 0)
}

// Done is closed when the process has ended.
func (h *heir) Done() <-chan struct{} { return h.done }

// Wait waits for the end.
func (h *heir) Wait() error {
	<-h.done
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
	return nil
}

var newPID = regexp.MustCompile(`new_pid=(\d+)`)

// upgrade has the relay replaced by a new process of the same program. No stream may
// notice.
func upgrade(_ context.Context, l *life, _ *rand.Rand) error {
	if strings.Contains(strings.Join(l.args, " "), "--intercept") {
		return nil // what a handler looks at stays with the old one, and is cut when that has drained
	}
	if _, err := l.look(); err != nil {
		return err
	}
	said := len(newPID.FindAllString(l.said(), -1))
	if err := l.process.Signal(unix.SIGUSR2); err != nil {
		return err
	}
	select {
	case <-l.process.Done():
	case <-time.After(patience):
		return fmt.Errorf("the old process does not end:\n%s", l.said())
	}
	return l.followHeir(said)
}

// followHeir goes on with the process that took over from one that has ended, whose log named
// so many before.
func (l *life) followHeir(said int) error {
	if err := l.process.Wait(); err != nil {
		return fmt.Errorf("the old process: %w\n%s", err, l.said())
	}
	told := newPID.FindAllStringSubmatch(l.said(), -1)
	if len(told) <= said {
		return fmt.Errorf("nobody took over:\n%s", l.said())
	}
	pid, err := strconv.Atoi(told[len(told)-1][1])
	if err != nil {
		return err
	}
	next, err := newHeir(pid)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, l.said())
	}
	l.process = next
	l.mu.Lock()
	l.totals.add(l.last)
	l.last = stats{}
	l.mu.Unlock()
	if l.base, err = l.atRest(); err != nil {
		return err
	}
	_, err = l.look()
	return err
}
