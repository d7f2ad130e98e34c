package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A thread is an OS thread that stays in the network namespace of its host and runs functions one
// after the other. Programs are forked from it, because their parent-death signal refers to the
// thread that forked them: if the Go runtime ended that thread, they would die at random.
type thread struct {
	calls chan func()
	stop  chan struct{} // closed to end the thread
	ended chan struct{} // closed when it takes no more calls
	tid   int           // set before start returns
}

// errGoexit is what a function yields that ended the goroutine it ran on.
var errGoexit = errors.New("the function ended the host's thread (t.Fatal within Do?); the host cannot be used any more")

// startThread starts a thread and calls enter on it. If enter fails, the thread ends.
func startThread(enter func() error) (*thread, error) {
	t := &thread{calls: make(chan func()), stop: make(chan struct{}), ended: make(chan struct{})}
	entered := make(chan error)
	goLocked(func() {
		defer close(t.ended)
		t.tid = unix.Gettid()
		err := enter()
		entered <- err
		if err != nil {
			return
		}
		for {
			select {
			case call := <-t.calls:
				call()
			case <-t.stop:
				return
			}
		}
	})
	if err := <-entered; err != nil {
		return nil, err
	}
	return t, nil
}

// do runs fn on the thread and returns what it returned. Called from the
// thread itself (by an fn), it runs it at once.
func (t *thread) do(fn func() error) error {
	select {
	case <-t.ended: // its number may be another thread's by now
		return ErrClosed
	default:
	}
	if unix.Gettid() == t.tid {
		return fn()
	}
	err := errGoexit
	done := make(chan struct{})
	call := func() {
		defer close(done)
		err = fn()
	}
	select {
	case t.calls <- call:
		<-done
		return err
	case <-t.ended:
		return ErrClosed
	}
}

// end ends the thread and waits until the kernel has none of that number: a
// goroutine ends before its thread does.
func (t *thread) end() error {
	close(t.stop)
	<-t.ended
	task := fmt.Sprintf("/proc/self/task/%d", t.tid)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(task); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("thread %d did not end", t.tid)
		}
	}
}

// goLocked runs fn on a thread of its own, which ends with fn. That thread is
// never the first of the process: the first one cannot end, so it would keep
// the namespace for good, and it stands for the process in /proc.
func goLocked(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return // still locked: ends the thread
		}
		// We sit on the first thread. While we do, another goroutine cannot.
		taken := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(taken)
			fn()
		}()
		<-taken
		runtime.UnlockOSThread()
	}()
}
