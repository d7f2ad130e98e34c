package account

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is what the calling thread has used, by another way; without end where
// the kernel does not tell.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return math.MaxInt64
	}
	return time.Duration(ts.Nano())
}

func TestTimeOfAThreadThatIsNotTheFirstCounts(t *testing.T) {
	const work = 50 * time.Millisecond
	before, err := Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	done, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	for range 2 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for threadTime() < work {
			}
			done <- struct{}{}
			<-release // so that the thread lives on
		}()
	}
	<-done
	<-done
	// A thread's last tick may be missing, and a thread may have had a past.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after, err := Process(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after-before >= work {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("two threads used %v each, together %v were counted", work, after-before)
		}
	}
}

func TestAnotherProcessIsRead(t *testing.T) {
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleep.Process.Kill()
		sleep.Wait()
	}()
	// What it used to start is on its account once it has left its CPU.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		used, err := Process(sleep.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if used > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no time is on the account of a program that has started")
		}
	}
}

func TestNoSuchProcess(t *testing.T) {
	if _, err := Process(math.MaxInt32); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNoTimeIsRefused(t *testing.T) {
	for _, text := range []string{"", "\n", "x 1 2", "-5 1 2", "99999999999999999999 0 0"} {
		if d, err := parse(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
	if d, err := parse("1500 7 3\n"); err != nil || d != 1500 {
		t.Errorf("%v, %v", d, err)
	}
}
