package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// exitPatience is how long a new program that failed to take over may take to exit by itself, so
// that the log can give its exit status. A few connections stand still for as long.
const exitPatience = 500 * time.Millisecond

// upgrader starts the program again and hands the relay over to it. Tests replace the fields that
// reach the process and its environment.
type upgrader struct {
	path     string // of the program, as it was started
	args     []string
	environ  func() []string
	start    func(path string, args []string, attr *os.ProcAttr) (successor, error)
	patience time.Duration // until the new program has taken over
	ambient  []cap.Value   // privileges that it gets
}

// successor is the new program: *os.Process, and what it ends with.
type successor interface {
	PID() int
	Signal(os.Signal) error
	Wait() (status string, err error)
}

// handing is the part of the relay that an upgrade needs.
type handing interface {
	HandOver(ctx context.Context, conn *net.UnixConn, failed func()) (left int, err error)
}

// newUpgrader must be called before the working directory can change. The path is that of the
// program as it was started, and the file that has this name at the upgrade is the new program.
// (The file that runs would be the old one, which may have been deleted.)
func newUpgrader(patience time.Duration) (*upgrader, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		if path, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("upgrades: where is this program? %w", err)
		}
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("upgrades: where is this program? %w", err)
	}
	return &upgrader{path: path, args: os.Args, environ: os.Environ, start: startProcess, patience: patience}, nil
}

// errProgramEnded is the cause that ends a hand-over to a program that has ended.
var errProgramEnded = errors.New("the new program has ended")

// upgrade starts the new program and returns when it has taken over, or with an error when it has
// ended and this one goes on. left is the number of pairs that could not be handed over. admin may
// be nil. When ctx is cancelled before the new program has taken over, it is killed.
func (u *upgrader) upgrade(ctx context.Context, relay handing, admin *os.File, listen []netip.AddrPort) (next successor, left int, err error) {
	ours, theirs, err := link()
	if err != nil {
		return nil, 0, err
	}
	defer ours.Close()
	process, err := u.launch(theirs, admin, listen)
	// Our copy of its end must go in any case: while it is open, HandOver does not notice that the
	// new program has died.
	theirs.Close()
	if err != nil {
		return nil, 0, err
	}

	late := fmt.Errorf("%s has not taken over within %v and was ended; see --upgrade-timeout", u.path, u.patience)
	ctx, stop := context.WithTimeoutCause(ctx, u.patience, late)
	defer stop()
	// HandOver also returns when the new program has ended: a process that it started could still
	// hold the other end.
	handing, ended := context.WithCancelCause(ctx)
	w := await(process, func() { ended(errProgramEnded) })
	end := func() { w.end(ctx) }
	left, err = relay.HandOver(handing, ours, end) // goes on with the relay when w has ended
	if err == nil {
		return process, left, nil
	}
	end() // a relay that was closed meanwhile has not called it
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return nil, 0, cause
	case w.killed:
		return nil, 0, fmt.Errorf("%s could not take over and was ended: %w", u.path, err)
	}
	return nil, 0, fmt.Errorf("%s ended before it had taken over: %s (%w)", u.path, w.status, err)
}

// link is the connection to the new program: our end and its end, which is in blocking mode. Both
// are closed on exec. Otherwise a program that is started at this moment for another purpose would
// inherit them, and we would not notice the new program's end.
func link() (ours *net.UnixConn, theirs *os.File, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = os.NewFile(uintptr(ends[1]), "relay")
	if ours, err = unixConn(ends[0]); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// unixConn makes a connection of a socket of the Unix domain, and takes the descriptor.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "relay")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptor %d is no socket of the Unix domain", fd)
	}
	return c, nil
}

// watched is a new program, with a goroutine that waits for its end.
type watched struct {
	successor
	ended  chan struct{} // closed then
	status string        // what it ended with; valid when ended is closed
	killed bool          // end had to kill it; valid when end has returned
}

// await watches a new program. told is called when it has ended.
func await(process successor, told func()) *watched {
	w := &watched{successor: process, ended: make(chan struct{})}
	go func() {
		defer told()
		defer close(w.ended)
		var err error
		if w.status, err = w.Wait(); err != nil {
			w.status = err.Error()
		}
	}()
	return w
}

// end returns when the program has ended. It kills the program after exitPatience, or when ctx is
// cancelled.
func (w *watched) end(ctx context.Context) {
	select {
	case <-w.ended:
		return
	case <-ctx.Done():
	case <-time.After(exitPatience):
	}
	w.killed = true
	w.Signal(unix.SIGKILL)
	<-w.ended
}

// launch starts the new program: same arguments, environment and standard files.
func (u *upgrader) launch(relay, admin *os.File, listen []netip.AddrPort) (successor, error) {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr, relay}
	in := inheritance{Relay: 3, Listen: listen}
	if admin != nil {
		in.Admin = len(files)
		files = append(files, admin)
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inheritVariable, err)
	}
	attr := &os.ProcAttr{Files: files, Env: append(u.environment(), inheritVariable+"="+string(text)), Sys: &syscall.SysProcAttr{}}
	// A process that is not root's keeps only its ambient capabilities on exec. They are raised in
	// the new process alone, so that no other process can inherit them.
	for _, value := range u.ambient {
		attr.Sys.AmbientCaps = append(attr.Sys.AmbientCaps, uintptr(value))
	}
	next, err := u.start(u.path, u.args, attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", u.path, err)
	}
	return next, nil
}

// environment is ours, without the variables that are for this process alone. WATCHDOG_PID names
// this process: without it the new program notifies the watchdog.
func (u *upgrader) environment() []string {
	return slices.DeleteFunc(u.environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name == inheritVariable || name == "WATCHDOG_PID"
	})
}

// started is a successor that runs.
type started struct{ *os.Process }

func startProcess(path string, args []string, attr *os.ProcAttr) (successor, error) {
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno // os adds "fork/exec" and the path, which are in our text already
		}
		return nil, err
	}
	return started{p}, nil
}

// PID is the process's number.
func (p started) PID() int { return p.Pid }

// Wait waits for the end, and says how it ended: "exit status 1".
func (p started) Wait() (string, error) {
	state, err := p.Process.Wait()
	if err != nil {
		return "", err
	}
	return state.String(), nil
}
