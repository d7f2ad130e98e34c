package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cmd is a program to run once in a host. Set its fields before Start.
//
// It runs in its own session, whose process group is killed when the context ends, by
// [Cmd.Stop], and by [Lab.Close]. It is reaped as soon as it ends, even if no one waits for it.
type Cmd struct {
	// Args is the program's name, found by PATH, and its arguments.
	Args []string
	// Env is its environment. Default nil: that of this process.
	Env []string
	// Dir is its working directory. Default "": that of this process.
	Dir string
	// Stdin, Stdout, Stderr are as in exec.Cmd; default nil: the null device.
	// No two goroutines write at a time, so the same buffer serves for both outputs.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// ExtraFiles become descriptors 3 and up.
	ExtraFiles []*os.File
	// Credential runs the program as another user. It needs real root, because the user
	// namespace of Enter has no other users. Default nil: the user of this process.
	Credential *syscall.Credential

	// OwnPIDs makes the program the first process of its own PID namespace: its descendants
	// then always die with it, even on kill -9 of this process. For programs that fork. As a
	// first process it ignores signals without a handler, except SIGKILL and SIGSTOP. It gets
	// its own /proc where the kernel permits that (not for users in a container whose /proc is
	// partly hidden).
	OwnPIDs bool

	host   *Host
	ctx    context.Context
	cancel context.CancelFunc
	cmd    *exec.Cmd
	pipe   *os.File // the end of StdoutPipe that goes to the program
	write  sync.Mutex
	tail   tail
	done   chan struct{}
	err    error // set before done is closed
}

// Command returns a program to be run in the host until ctx ends. It holds
// nothing before Start.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), host: h, ctx: ctx, done: make(chan struct{})}
}

// Start starts the program. The error says which program in which host, and
// is [ErrClosed] after Close.
func (c *Cmd) Start() error {
	if c.cmd != nil {
		return c.wrap(errors.New("was started before"))
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.cancel = cancel
	args := c.Args
	if _, err := exec.LookPath(args[0]); c.OwnPIDs && err == nil {
		args = append([]string{"sh", "-c", `mount -t proc proc /proc 2>/dev/null; exec "$0" "$@"`}, args...)
	}
	c.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	c.cmd.Env, c.cmd.Dir, c.cmd.Stdin, c.cmd.ExtraFiles = c.Env, c.Dir, c.Stdin, c.ExtraFiles
	c.cmd.Stdout = c.output(c.Stdout)
	c.cmd.Stderr = c.output(c.Stderr)
	if _, isFile := c.cmd.Stderr.(*os.File); !isFile {
		c.cmd.Stderr = &synced{&c.write, []io.Writer{&c.tail, c.Stderr}}
	}
	c.cmd.Cancel = c.killGroup
	c.cmd.WaitDelay = 2 * time.Second // for descendants that hold the outputs
	// In a session of its own, a program is a scheduling group of its own (sched_autogroup), as it
	// would be as a service, or in a terminal: CPU time is shared between programs, not threads,
	// and the signals of our terminal do not reach it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Credential: c.Credential}
	if c.OwnPIDs {
		c.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		c.cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // its mounts are its own, too
	}

	lab := c.host.lab
	lab.mu.Lock()
	closed := lab.closed
	if !closed {
		lab.running[c] = struct{}{} // from here on Close waits for done
	}
	lab.mu.Unlock()
	err := ErrClosed
	if !closed {
		err = c.host.Do(c.cmd.Start)
	}
	if c.pipe != nil {
		c.pipe.Close()
	}
	if err != nil {
		c.finish(err)
		return c.err
	}
	release := context.AfterFunc(lab.ctx, cancel)
	go func() {
		err := c.cmd.Wait()
		release()
		if err != nil && lab.ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", ErrClosed, err)
		} else if err != nil && c.ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", c.ctx.Err(), err)
		}
		c.finish(err)
	}()
	return nil
}

func (c *Cmd) finish(err error) {
	c.cancel()
	c.host.lab.mu.Lock()
	delete(c.host.lab.running, c)
	c.host.lab.mu.Unlock()
	if err != nil {
		c.err = c.wrap(err)
	}
	close(c.done)
}

// wrap names host and program, and adds what the program said last.
func (c *Cmd) wrap(err error) error {
	if last := c.tail.lines(3); last != "" {
		return fmt.Errorf("netlab: %s: %s: %w: %s", c.host.Name, filepath.Base(c.Args[0]), err, last)
	}
	return fmt.Errorf("netlab: %s: %s: %w", c.host.Name, filepath.Base(c.Args[0]), err)
}

// killGroup kills the program and its group. It kills the group only while the program has not
// been reaped: later its number may belong to another process.
func (c *Cmd) killGroup() error {
	if err := c.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		return err
	}
	return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
}

// Wait waits until the program has ended. The error is nil for exit status 0;
// otherwise it holds the last lines of stderr, and wraps the *exec.ExitError, and
// the context's error or [ErrClosed] if that is what ended it.
func (c *Cmd) Wait() error {
	if c.cmd == nil {
		return c.wrap(errors.New("was not started"))
	}
	<-c.done
	return c.err
}

// Done is closed when the program has ended and was reaped.
func (c *Cmd) Done() <-chan struct{} { return c.done }

// Run starts the program and waits for it, with the errors of both.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns what it wrote to its standard output,
// on error too.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// StdoutPipe returns what the program will write to its standard output, to be
// read until it has ended and then closed by the caller. Call it before Start.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, c.wrap(err)
	}
	c.Stdout, c.pipe = w, w
	return r, nil
}

// PID returns the program's process id, as seen from this process, or 0 before Start.
func (c *Cmd) PID() int {
	if c.cmd == nil || c.cmd.Process == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// Signal sends a signal to the program, though not to its descendants. The error
// is os.ErrProcessDone if it has ended.
func (c *Cmd) Signal(sig os.Signal) error {
	if c.PID() == 0 {
		return c.wrap(errors.New("was not started"))
	}
	if err := c.cmd.Process.Signal(sig); err != nil {
		return c.wrap(fmt.Errorf("signal %s: %w", sig, err))
	}
	return nil
}

// Stop kills the program and its group and waits until they are gone. Use Signal and Wait to end
// it orderly. It may be called more than once, and before Start.
func (c *Cmd) Stop() {
	if c.cmd != nil {
		c.cancel()
		<-c.done
	}
}

// output leaves files as they are, for the program to write to by itself.
func (c *Cmd) output(w io.Writer) io.Writer {
	switch w.(type) {
	case nil, *os.File:
		return w
	}
	return &synced{&c.write, []io.Writer{w}}
}

// synced writes to several writers, one goroutine at a time.
type synced struct {
	mu *sync.Mutex
	to []io.Writer
}

func (s *synced) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.to {
		if w == nil {
			continue
		}
		if n, err := w.Write(p); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const keep = 2048
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if len(t.end) > keep {
		t.end = append(t.end[:0], t.end[len(t.end)-keep:]...)
	}
	return len(p), nil
}

// lines returns the last n lines as one.
func (t *tail) lines(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.end)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, " | ")
}
