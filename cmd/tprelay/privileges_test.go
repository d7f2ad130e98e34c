package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// What a thread has when it has these two, or one of them, or none.
const (
	capsNone      = "0000000000000000"
	capsAdmin     = "0000000000001000"
	capsRaw       = "0000000000002000"
	capsAdminBind = "0000000000001400"
)

// checkThreads checks fields of /proc/PID/task/*/status, on every thread.
func checkThreads(t *testing.T, pid int, want map[string]string) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		found := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			found[name] = strings.Join(strings.Fields(value), " ")
		}
		for name, value := range want {
			if found[name] != value {
				t.Errorf("%s: %s is %q, want %q", path, name, found[name], value)
			}
		}
	}
}

// confined is what the status of a thread says that has only these capabilities.
func confined(caps string) map[string]string {
	return map[string]string{"CapEff": caps, "CapPrm": caps, "CapInh": capsNone, "CapAmb": capsNone, "NoNewPrivs": "1"}
}

// needRoot skips the test unless it may start programs as other users.
func needRoot(t *testing.T) {
	t.Helper()
	if err := netlab.OtherUsers(); err != nil {
		t.Skip(err)
	}
}

// asOther has a command of this binary run as an ordinary user, with these capabilities alone.
func asOther(t *testing.T, cmd *exec.Cmd, capabilities ...uintptr) {
	t.Helper()
	needRoot(t)
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}, AmbientCaps: capabilities}
	cmd.Path = copyOfProgram(t)
}

func TestCapabilitiesAreThoseThatTheModeNeeds(t *testing.T) {
	for _, c := range []struct {
		mode  tproxy.Mode
		spoof tproxy.Spoof
		mark  markFlag
		want  string
	}{
		{tproxy.TPROXY, tproxy.SpoofDefault, 0, "[cap_net_admin cap_net_bind_service]"},
		{tproxy.TPROXY, tproxy.SpoofFullOrNone, 0, "[cap_net_admin cap_net_bind_service]"},
		{tproxy.TPROXY, tproxy.SpoofIP, 0, "[cap_net_admin]"},
		{tproxy.TPROXY, tproxy.SpoofNone, 0, "[cap_net_admin]"},
		{tproxy.Redirect, tproxy.SpoofDefault, 0, "[]"},
		{tproxy.Redirect, tproxy.SpoofIPOrNone, 0, "[cap_net_admin]"},
		{tproxy.Redirect, tproxy.SpoofFull, 0, "[cap_net_admin cap_net_bind_service]"},
		{tproxy.Forward, tproxy.SpoofDefault, 0, "[]"},
		{tproxy.Forward, tproxy.SpoofDefault, 1, "[cap_net_admin]"},
	} {
		cmd := runCmd{Mode: modeFlag{c.mode}, Spoof: spoofFlag{c.spoof}, Mark: c.mark}
		if got := fmt.Sprint(cmd.capabilities()); got != c.want {
			t.Errorf("%v, spoof %v, mark %d: %s, want %s", c.mode, c.spoof, c.mark, got, c.want)
		}
	}
}

func TestProcessGivesUpWhatItDoesNotNeed(t *testing.T) {
	needRoot(t)
	upstream := echo(t)
	for _, c := range []struct {
		args []string
		caps string
	}{
		{forwardTo(upstream), capsNone},
		{forwardTo(upstream, "--mark", "7"), capsAdmin},
		{[]string{"run", "--mode", "redirect", "--listen", "127.0.0.1:0", "--log-format", "json"}, capsNone},
		{[]string{"run", "--mode", "redirect", "--spoof", "full", "--listen", "127.0.0.1:0", "--log-format", "json"}, capsAdminBind},
		{[]string{"run", "--mode", "tproxy", "--listen", "127.0.0.1:0", "--log-format", "json"}, capsAdminBind},
	} {
		p := watch(t, command(t, c.args...))
		p.line("listening")
		checkThreads(t, p.cmd.Process.Pid, confined(c.caps))
		p.signal(unix.SIGTERM)
		if status := p.wait(); status != 0 {
			t.Errorf("%q: status %d: %s", c.args, status, p.last())
		}
	}
}

// TestProcessBecomesAnotherUser: with a log that can be opened anew, a port that only
// root could have bound, and descriptors to be seen among the metrics.
func TestProcessBecomesAnotherUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, parent := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "access.log")
	p := watch(t, command(t, forwardTo(echo(t), "--listen", "127.0.0.1:879", "--user", "nobody", "--access-log", log, "--admin", "127.0.0.1:0")...))
	url := p.line("admin")["url"].(string)
	address := p.line("listening")["address"]
	want := confined(capsNone)
	want["Uid"], want["Gid"] = "65534 65534 65534 65534", "65534 65534 65534 65534"
	checkThreads(t, p.cmd.Process.Pid, want)
	transfer(t, dial(t, address), []byte("one"))
	transfer(t, dial(t, "127.0.0.1:879"), []byte("two"))
	if text := get(t, url+"metrics"); !strings.Contains(text, "\nprocess_open_fds ") {
		t.Errorf("the metrics have lost the number of descriptors:\n%s", text)
	}
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	p.signal(unix.SIGHUP)
	p.line("access log reopened")
	transfer(t, dial(t, address), []byte("three"))
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != 0 || len(lines(t, log)) != 1 || lines(t, log)[0] == "" {
		t.Errorf("status %d, access log %q", status, lines(t, log))
	}
}

func TestProcessWithUserThatCannotBe(t *testing.T) {
	upstream := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	status, _, stderr := run(t, command(t, forwardTo(upstream, "--user", "no such user")...))
	if want := "tprelay: --user no such user: no such user\n"; status != 1 || stderr != want {
		t.Errorf("status %d, %q", status, stderr)
	}
	cmd := command(t, forwardTo(upstream, "--user", "root")...)
	if os.Geteuid() == 0 {
		asOther(t, cmd)
	}
	status, _, stderr = run(t, cmd)
	if want := "tprelay: --user root: setgroups: operation not permitted; only root can change the user\n"; status != 1 || stderr != want {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// TestKeepOnlyKeepsNoMoreThanThereIs: in a user namespace of its own there are others.
func TestKeepOnlyKeepsNoMoreThanThereIs(t *testing.T) {
	if os.Getenv("TPRELAY_TEST_KEEP") == "" {
		cmd := testCommand("TestKeepOnlyKeepsNoMoreThanThereIs", "TPRELAY_TEST_KEEP=1")
		asOther(t, cmd, unix.CAP_NET_ADMIN)
		if status, stdout, stderr := run(t, cmd); status != 0 {
			t.Errorf("%s%s", stdout, stderr)
		}
		return
	}
	left, err := keepOnly([]cap.Value{cap.NET_ADMIN, cap.NET_BIND_SERVICE})
	if err != nil || fmt.Sprint(left) != "[cap_net_admin]" {
		t.Errorf("%v, %v", left, err)
	}
	checkThreads(t, os.Getpid(), confined(capsAdmin))
}

// TestRawCapabilityIsEnough: Docker's default set has CAP_NET_RAW and not CAP_NET_ADMIN. The kernel
// lets it spoof and mark; given up after the start, every client was reset.
func TestRawCapabilityIsEnough(t *testing.T) {
	needRoot(t)
	upstream := echo(t)
	for _, args := range [][]string{{"--spoof", "ip"}, {"--mark", "7"}} {
		cmd := command(t, forwardTo(upstream, args...)...)
		asOther(t, cmd, unix.CAP_NET_RAW)
		p := watch(t, cmd)
		address := p.line("listening")["address"]
		checkThreads(t, p.cmd.Process.Pid, confined(capsRaw))
		transfer(t, dial(t, address), []byte("hello"))
		p.signal(unix.SIGTERM)
		if status := p.wait(); status != 0 {
			t.Errorf("%q: status %d: %s", args, status, p.last())
		}
	}
}

// TestMissingPrivilegeIsToldAtTheStart: in one line, and before anybody connects.
func TestMissingPrivilegeIsToldAtTheStart(t *testing.T) {
	needRoot(t)
	upstream := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for _, c := range []struct {
		args []string
		want string
	}{
		{forwardTo(upstream, "--spoof", "ip"), "IP_TRANSPARENT"},
		{forwardTo(upstream, "--mark", "7"), "SO_MARK"},
		{[]string{"run", "--mode", "redirect", "--spoof", "full", "--listen", "127.0.0.1:0"}, "IP_TRANSPARENT"},
	} {
		cmd := command(t, c.args...)
		asOther(t, cmd)
		status, _, stderr := run(t, cmd)
		if status != 1 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "CAP_NET_ADMIN") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q", c.args, status, stderr)
		}
	}
}
