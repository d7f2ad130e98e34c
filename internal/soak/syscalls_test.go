package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// failing is a system call of the relay, and errors that the kernel may give for it. EAGAIN
// is not among them: where it is a lie, no event comes to put it right.
type failing struct {
	call   string
	errors []string
	reach  reach
}

func failingCalls() []failing {
	return []failing{
		{"accept4", []string{"ENFILE", "EMFILE", "ENOMEM", "ENOBUFS", "ECONNABORTED", "EINTR", "EPROTO", "EPERM"}, cutsNothing},
		{"socket", []string{"ENOBUFS", "EMFILE", "ENFILE", "ENOMEM"}, cutsNothing},
		{"bind", []string{"EADDRINUSE", "EADDRNOTAVAIL"}, cutsUnopened}, // twice is once too often
		{"connect", []string{"ENETUNREACH", "EADDRNOTAVAIL", "EPERM"}, cutsUnopened},
		{"epoll_ctl", []string{"ENOMEM", "ENOSPC"}, cutsUnopened},
		{"epoll_pwait", []string{"EINTR"}, cutsNothing},
		{"splice", []string{"EINTR", "EINVAL"}, cutsNothing},
		{"recvfrom", []string{"EINTR"}, cutsNothing},
		{"sendto", []string{"EINTR"}, cutsNothing},
		{"pipe2", []string{"EMFILE", "ENFILE"}, cutsNothing},
		{"fcntl", []string{"EPERM"}, cutsNothing}, // F_SETPIPE_SZ
	}
}

// faultsOfSystemCalls is one fault for each call; none where there is no strace.
func faultsOfSystemCalls() (all []fault) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil
	}
	for _, f := range failingCalls() {
		all = append(all, fault{f.call + " fails", 2, f.reach, func(ctx context.Context, l *life, r *rand.Rand) error {
			return f.inject(ctx, strace, l, r)
		}})
	}
	return all
}

// inject lets some of the calls fail for a while.
func (f failing) inject(ctx context.Context, strace string, l *life, r *rand.Rand) error {
	name := f.errors[r.IntN(len(f.errors))]
	tracer := l.lab.H2.Command(context.Background(), strace, "-f", "-q", "-p", strconv.Itoa(l.process.PID()), "-o", "/dev/null",
		"-e", "trace="+f.call, "-e", fmt.Sprintf("inject=%s:error=%s:when=%d+%d", f.call, name, 1+r.IntN(5), 2+r.IntN(6)))
	if err := tracer.Start(); err != nil {
		return err
	}
	pause(ctx, upTo(3*time.Second, r))
	// A call that is made to fail when strace lets go of the relay would return ENOSYS,
	// which is no error of the kernel's. So nothing may be under way then.
	if err := l.freeze(); err != nil {
		return err
	}
	defer l.process.Signal(unix.SIGCONT)
	if err := tracer.Signal(unix.SIGINT); err != nil {
		return fmt.Errorf("strace has ended: %w", tracer.Wait())
	}
	select {
	case <-tracer.Done():
		return nil
	case <-time.After(patience):
		tracer.Stop()
		return fmt.Errorf("strace does not end")
	}
}

// freeze stops the relay and waits until each of its threads has.
func (l *life) freeze() error {
	if err := l.process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	var before string
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		now, err := l.switches()
		if err != nil {
			return err
		}
		if now == before {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the relay does not stop")
		}
		before = now
	}
}

// switches are the numbers of context switches of all threads: of one that is stopped, it
// stays the same.
func (l *life) switches() (string, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", l.process.PID()))
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		_, counts, _ := strings.Cut(string(text), "voluntary_ctxt_switches")
		all.WriteString(counts)
	}
	return all.String(), nil
}
