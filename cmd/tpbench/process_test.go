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
		if os.Getuid() != 0 {
			t.Skip("needs root to become somebody else")
		}
		if m, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(m))[2] == "1" {
			t.Skip("there is nobody else in this user namespace")
		}
		temp, exe = forEverybody(t)
	}
	cmd := exec.Command(exe, args...)
	mark := fmt.Sprintf("TPBENCH_TEST=%d/%s", os.Getpid(), t.Name())
	cmd.Env = append(os.Environ(), asProgram+"=1", mark, "TMPDIR="+temp)
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
		for _, left := range marked(t, mark) {
			t.Errorf("left behind: process %s", left)
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

// marked lists the processes with a variable in their environment.
func marked(t *testing.T, mark string) (found []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if environ, err := os.ReadFile(path); err == nil && bytes.Contains(environ, []byte(mark+"\x00")) {
			comm, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			found = append(found, filepath.Base(filepath.Dir(path))+" "+strings.ReplaceAll(string(comm), "\x00", " "))
		}
	}
	return found
}
