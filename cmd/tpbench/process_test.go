package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
)

// self is this program, to be run once more.
const self = "/proc/self/exe"

// needsRules skips the test where no packet filter is installed.
func needsRules(t *testing.T) {
	t.Helper()
	if !rules.NFT.Installed() && !rules.IPTables.Installed() {
		t.Skip("neither nft nor iptables is installed")
	}
}

// process is tpbench as a process, of an ordinary user if so wanted. Nothing of it may
// be left when the test has ended.
func process(t *testing.T, ordinary bool, args ...string) *exec.Cmd {
	t.Helper()
	temp := t.TempDir()
	exe := self
	if ordinary {
		if err := netlab.OtherUsers(); err != nil {
			t.Skip(err)
		}
		temp, exe = forEverybody(t)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", mark(t), "TMPDIR="+temp)
	cmd.Dir = "/"
	if ordinary {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		for pid, command := range marked(t, mark(t)) {
			t.Errorf("left behind: process %s %s", pid, command)
		}
		if files, err := os.ReadDir(temp); err != nil || len(files) > 0 {
			t.Errorf("left behind: %v, %v", files, err)
		}
	})
	return cmd
}

// forEverybody gives a directory that all may write to, and a copy of this program
// that all may run.
func forEverybody(t *testing.T) (temp, exe string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpbench-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	temp, exe = filepath.Join(dir, "tmp"), filepath.Join(dir, "tpbench")
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Mkdir(temp, 0o700), os.Chmod(temp, 0o1777),
		os.WriteFile(exe, program, 0o755), os.Chmod(exe, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return temp, exe
}

// mark is in the environment of all processes that a test starts.
func mark(t *testing.T) string { return fmt.Sprintf("TPBENCH_TEST=%d/%s", os.Getpid(), t.Name()) }

// marked gives the processes with a variable in their environment, and their command lines.
func marked(t *testing.T, mark string) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if environ, err := os.ReadFile(path); err == nil && bytes.Contains(environ, []byte(mark+"\x00")) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			found[filepath.Base(filepath.Dir(path))] = strings.ReplaceAll(string(command), "\x00", " ")
		}
	}
	return found
}

// awaitTransfer waits until bytes flow between the hosts that the marked processes are on.
func awaitTransfer(t *testing.T, mark string) {
	t.Helper()
	const some = 100_000
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]uint64{} // by network namespace
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		for pid := range marked(t, mark) {
			host, err := os.Readlink("/proc/" + pid + "/ns/net")
			if err != nil || host == ours {
				continue // it has ended, or is on no host of the demo
			}
			got := received(pid)
			if before, known := first[host]; !known {
				first[host] = got
			} else if got >= before+some {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is transferred")
		}
	}
}

// received is how many bytes have come over the interfaces of a process's host: the first column
// after the interface's name. 0: it has ended.
func received(pid string) (sum uint64) {
	text, _ := os.ReadFile("/proc/" + pid + "/net/dev")
	for line := range strings.Lines(string(text)) {
		name, columns, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) != "lo" {
			var n uint64
			fmt.Sscan(columns, &n)
			sum += n
		}
	}
	return sum
}
