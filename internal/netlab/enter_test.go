package netlab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"golang.org/x/sys/unix"
)

// roleVariable tells the test binary to be a process of a test.
const roleVariable = "NETLAB_TEST_ROLE"

// holding is what a process that holds a lab tells of itself.
type holding struct {
	PIDs   []int
	Inodes []uint64 // of its network namespaces
}

func play(role string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch role {
	case "hold":
		h, err := hold()
		if err != nil {
			return fail(err)
		}
		json.NewEncoder(os.Stdout).Encode(h)
		select {}
	case "status":
		return 42
	case "signal":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("ready")
		<-signals
		return 43
	case "suicide":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return fail(errors.New("no such role: " + role))
}

// hold builds a lab with programs of all kinds in it, and never closes it.
func hold() (holding, error) {
	h := holding{PIDs: []int{os.Getpid()}}
	lab, err := netlab.New(netlab.Config{})
	if err != nil {
		return h, err
	}
	ctx := context.Background()
	iperf, err := lab.H3.Iperf3Server(ctx, 5201)
	if err == nil {
		h.PIDs = append(h.PIDs, iperf.PID())
	} else if !errors.Is(err, exec.ErrNotFound) {
		return h, err
	}
	sleep := lab.H1.Command(ctx, "sleep", "1000")
	family := lab.H2.Command(ctx, "sh", "-c", "setsid sleep 1000 & sleep 1000")
	family.OwnPIDs = true
	for _, c := range []*netlab.Cmd{sleep, family} {
		if err := c.Start(); err != nil {
			return h, err
		}
		h.PIDs = append(h.PIDs, c.PID())
	}
	for _, host := range []*netlab.Host{lab.H1, lab.H2, lab.H3} {
		var st unix.Stat_t
		if err := host.Do(func() error { return unix.Stat("/proc/thread-self/ns/net", &st) }); err != nil {
			return h, err
		}
		h.Inodes = append(h.Inodes, st.Ino)
	}
	return h, nil
}

// self returns the test binary in a role. As an ordinary user if so wanted,
// which only root can, from a copy that such a user may execute.
func self(t *testing.T, role string, ordinary bool) *exec.Cmd {
	t.Helper()
	exe := "/proc/self/exe"
	if ordinary {
		if err := netlab.OtherUsers(); err != nil {
			t.Skip(err)
		}
		dir, err := os.MkdirTemp("", "netlab-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		from, err := os.Open(exe)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		exe = filepath.Join(dir, "netlab.test")
		to, err := os.OpenFile(exe, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	if ordinary {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

func TestKillNineLeavesNothing(t *testing.T) {
	for name, ordinary := range map[string]bool{"same user": false, "ordinary user": true} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cmd := self(t, "hold", ordinary)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			var h holding
			if err := json.NewDecoder(out).Decode(&h); err != nil {
				t.Fatal(err)
			}
			if n := len(inside(t, h.Inodes)); n < 4 {
				t.Errorf("%d processes in the lab, wanted at least iperf3 or none and 4 more", n)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			awaitGone(t, h.PIDs...)
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				left := inside(t, h.Inodes)
				if len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("still in the namespaces: %v", left)
				}
			}
		})
	}
}

// inside lists the threads of this machine that are in one of the namespaces.
func inside(t *testing.T, inodes []uint64) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		var st unix.Stat_t
		if unix.Stat(link, &st) != nil {
			continue
		}
		for _, inode := range inodes {
			if st.Ino == inode {
				found = append(found, link)
			}
		}
	}
	return found
}

func TestEnterPassesTheStatusOn(t *testing.T) {
	for role, want := range map[string]int{"status": 42, "suicide": 128 + 9} {
		cmd := self(t, role, true)
		var exit *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%s: got %v, wanted %d", role, err, want)
		}
	}
}

func TestEnterPassesSignalsOn(t *testing.T) {
	cmd := self(t, "signal", true)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 43 {
		t.Errorf("got %v", err)
	}
}

func TestEnterSaysWhatToDoWhereRefused(t *testing.T) {
	cmd := self(t, "status", true)
	for _, name := range []string{"unshare", "setpriv"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	// Inside a user namespace that allows no more of them.
	const limit = "/proc/sys/user/max_user_namespaces"
	old, err := os.ReadFile(limit)
	if err != nil {
		t.Skip(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(old))); err != nil || n == 0 {
		t.Skip("user namespaces are refused here already")
	}
	script := fmt.Sprintf("echo 0 > %s && exec setpriv --bounding-set -all --inh-caps -all \"$0\"", limit)
	refused := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", script, cmd.Path)
	refused.Env, refused.Dir = cmd.Env, "/"
	out, err := refused.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("got %v: %s", err, out)
	}
	text := strings.TrimSpace(string(out))
	if strings.Count(text, "\n") != 0 || !strings.Contains(text, "sysctl user.max_user_namespaces") {
		t.Errorf("it said: %s", text)
	}
}
