package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/cli"
)

// demo is tpbench demo as a process.
func demo(t *testing.T, ordinary bool, args ...string) *exec.Cmd {
	t.Helper()
	return process(t, ordinary, append([]string{"demo"}, args...)...)
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

func TestDemoMeasures(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for name, tc := range map[string]struct {
		ordinary bool
		args     []string
	}{
		"built-in":            {false, []string{"--traffic", "builtin"}},
		"iperf3":              {false, []string{"--traffic", "iperf3", "--ipv6"}},
		"redirect":            {false, []string{"--mode", "redirect", "--traffic", "builtin"}},
		"as an ordinary user": {true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("iperf3"); err != nil && name == "iperf3" {
				t.Skip(err)
			}
			if _, err := backend(); err != nil {
				t.Skip(err)
			}
			cmd := demo(t, tc.ordinary, append([]string{"--json", "--seconds", "5"}, tc.args...)...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			if n := strings.Count(stderr.String(), "\n"); n != 3 {
				t.Errorf("progress of %d lines: %s", n, stderr.String())
			}
			dec := json.NewDecoder(&stdout)
			dec.DisallowUnknownFields()
			var r report
			if err := dec.Decode(&r); err != nil {
				t.Fatal(err)
			}
			check(t, &r, name == "redirect")
		})
	}
}

// check holds a report against what is true whatever the machine's speed.
func check(t *testing.T, r *report, redirect bool) {
	t.Helper()
	if len(r.Runs) != 3 || len(r.Reading) != 3 {
		t.Fatalf("%d runs, %d sentences", len(r.Runs), len(r.Reading))
	}
	for i, run := range r.Runs {
		if run.Relay != (i > 0) || run.FlowControl != (i == 1) || (run.Process != nil) != run.Relay {
			t.Errorf("run %d: %+v", i, run)
		}
		if run.SenderRate <= 0 || run.ArrivedRate <= 0 || run.ArrivedBytes <= 0 || run.ArrivedBytes > run.SentBytes {
			t.Errorf("%s: sent %d bytes at %.0f bit/s, arrived %d at %.0f", run.Name, run.SentBytes, run.SenderRate, run.ArrivedBytes, run.ArrivedRate)
		}
		if run.SentBytes != flow.Total(run.Sender) || run.ArrivedBytes != flow.Total(run.Arrived) || len(run.Sender) < 3 || len(run.Arrived) < 3 {
			t.Errorf("%s: intervals %v, %v", run.Name, run.Sender, run.Arrived)
		}
		wantSaw := sawClient
		if redirect && run.Relay {
			wantSaw = sawRelay
		}
		if run.Saw != wantSaw || (wantSaw == sawClient) != (run.Client == run.ServerSaw) || !run.ServerSaw.IsValid() {
			t.Errorf("%s: client %v, server saw %v: %s", run.Name, run.Client, run.ServerSaw, run.Saw)
		}
		p := run.Process
		if p == nil {
			continue
		}
		if p.RSSAtStart <= 0 || p.RSSPeak < p.RSSAtStart || p.AnonPeak <= 0 || p.Accepted == 0 {
			t.Errorf("%s: %+v", run.Name, *p)
		}
		// iperf3 has a connection for its own purposes, with its own two directions.
		if most := int64(p.Accepted) * engine.DefaultHighWatermark; run.FlowControl && p.PendingPeak > most {
			t.Errorf("%s: %d bytes were pending", run.Name, p.PendingPeak)
		}
	}
	t.Log(strings.Join(r.Reading, "\n")) // what depends on time, for people
}

func TestInterruptLeavesNothingBehind(t *testing.T) {
	for name, ordinary := range map[string]bool{"root": false, "ordinary user": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := demo(t, ordinary, "--seconds", "4")
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stderr)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(line, err)
				}
				if strings.HasPrefix(line, "2 of 3") {
					break
				}
			}
			time.Sleep(500 * time.Millisecond) // into the transfer, most likely
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(lines)
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != cli.Failure || string(rest) != "tpbench: interrupted\n" {
				t.Errorf("%v, it said %q", err, rest)
			}
		})
	}
}
