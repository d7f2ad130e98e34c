package netlab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
)

func TestCommandRunsInTheHost(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	out, err := lab.H1.Command(within(t, 5*time.Second), "ip", "-br", "addr", "show", "eth0").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "10.77.1.1/24") {
		t.Errorf("h1's addresses: %s", out)
	}
}

func TestCommandErrorHoldsLastWords(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	out, err := lab.H1.Command(within(t, 5*time.Second), "sh", "-c", "echo out; echo one >&2; echo two >&2; exit 3").Output()
	if string(out) != "out\n" {
		t.Errorf("output %q", out)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("got %v", err)
	}
	if want := "netlab: h1: sh: exit status 3: one | two"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if err := lab.H1.Command(within(t, 5*time.Second), "no-such-program").Run(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestCommandSharesABufferForBothOutputs(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	c := lab.H1.Command(within(t, 5*time.Second), "sh", "-c", "echo a; echo b >&2")
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if got := both.String(); len(got) != 4 {
		t.Errorf("got %q", got)
	}
}

func TestStdoutPipeIsReadWhileItRuns(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	c := lab.H1.Command(within(t, 5*time.Second), "sh", "-c", "echo ready; exec cat")
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin = in
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	line := make([]byte, 6)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	fmt.Fprint(feed, "tail")
	feed.Close()
	if rest, err := io.ReadAll(out); err != nil || string(rest) != "tail" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func TestContextKillsTheGroup(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	c := lab.H1.Command(ctx, "sh", "-c", "sleep 1000 & echo $!; wait")
	pid := startAndReadPID(t, c)
	cancel()
	if err := c.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	awaitGone(t, c.PID(), pid)
}

func TestCloseKillsDaemonsThatLeftTheGroup(t *testing.T) {
	leak.Check(t)
	for _, own := range []bool{false, true} {
		lab := newLab(t, netlab.Config{})
		c := lab.H2.Command(context.Background(), "sh", "-c", "setsid sleep 1000 & echo $!; wait")
		c.OwnPIDs = own
		pid := startAndReadPID(t, c)
		gone := lab.H2.Command(context.Background(), "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
		daemon := startAndReadPID(t, gone)
		if err := gone.Wait(); err != nil {
			t.Error(err)
		}
		if err := lab.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); !errors.Is(err, netlab.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if own {
			pid = 0 // its number is not ours
		}
		awaitGone(t, c.PID(), pid, daemon)
	}
}

func TestOwnPIDsComeWithTheirProc(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	c := lab.H1.Command(context.Background(), "sh", "-c", `echo $$; cat /proc/$$/comm; ls -d /proc/[0-9]* | wc -l`)
	c.OwnPIDs = true
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	// Three processes at most: the shell, ls, and wc.
	if got := strings.Fields(string(out)); len(got) != 3 || got[0] != "1" || got[1] != "sh" || got[2] > "3" {
		t.Errorf("it is process %q", got)
	}
}

func TestSignalEndsAProgramKindly(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	c := lab.H1.Command(context.Background(), "sh", "-c", "trap 'echo bye; exit 0' TERM; echo $$; while :; do sleep 0.01; done")
	var out bytes.Buffer
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	io.Copy(&out, r)
	if out.String() != "bye\n" {
		t.Errorf("it said %q", out.String())
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v", err)
	}
}

func TestWaitListenIsBoundedByContext(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	if err := lab.H1.WaitListen(within(t, 20*time.Millisecond), 80); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// startAndReadPID starts a program whose first line is a process id.
func startAndReadPID(t *testing.T, c *netlab.Cmd) int {
	t.Helper()
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(r, &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// awaitGone waits until none of these processes runs. Zombies of other processes do not count.
func awaitGone(t *testing.T, pids ...int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		var alive []string
		for _, pid := range pids {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !strings.Contains(string(stat), ") Z ") {
				alive = append(alive, string(stat))
			}
		}
		if len(alive) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there:\n%s", strings.Join(alive, ""))
		}
	}
}
