package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/cli"
)

// startWorker is tpbench worker as a process, with its job.
func startWorker(t *testing.T, job string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader, stderr *strings.Builder) {
	t.Helper()
	cmd = exec.Command(self, "worker")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr = new(strings.Builder)
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := io.WriteString(in, job+"\n"); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewReader(stdout), stderr
}

func TestWorkerEndsWithItsInput(t *testing.T) {
	// Nobody listens there, which for this kind is no reason to give up.
	cmd, in, out, stderr := startWorker(t, `{"Kind":"cps","Address":"127.0.0.1:1"}`)
	if line, err := out.ReadString('\n'); err != nil || line != `{"ready":true}`+"\n" {
		t.Fatalf("it said %q, %v, %s", line, err, stderr)
	}
	in.Close()
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("%v, %s", err, stderr)
	}
}

func TestWorkerRefusesInOneLine(t *testing.T) {
	cmd, _, _, stderr := startWorker(t, `{"Kind":"serve","Address":"192.0.2.1:80"}`)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != cli.Failure {
		t.Errorf("%v", err)
	}
	if said := stderr.String(); !strings.HasPrefix(said, "tpbench: worker: serve 192.0.2.1:80: listen on 192.0.2.1:80: ") || strings.Count(said, "\n") != 1 {
		t.Errorf("it said %q", said)
	}
}
