package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/cli"
)

// argsVariable makes the test binary be tprelay: see TestAsProgram.
const argsVariable = "TPRELAY_TEST_ARGS"

// TestAsProgram is no test: it is the program, when a test starts this binary.
func TestAsProgram(t *testing.T) {
	text, ok := os.LookupEnv(argsVariable)
	if !ok {
		t.Skip("only for processes that tests start")
	}
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		t.Fatal(err)
	}
	os.Exit(program(args, os.Stdout, os.Stderr))
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAsProgram$")
	cmd.Env = append(os.Environ(), argsVariable+"="+string(text))
	return cmd
}

// process is a tprelay run that logs JSON.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *bufio.Scanner
	seen   []string
}

// start runs tprelay in forward mode to upstream, with more args.
func start(t *testing.T, upstream net.Addr, args ...string) *process {
	t.Helper()
	return startWith(t, nil, upstream, args...)
}

// startWith is start with a standard output.
func startWith(t *testing.T, stdout *os.File, upstream net.Addr, args ...string) *process {
	t.Helper()
	cmd := command(t, forwardTo(upstream, args...)...)
	if stdout != nil {
		cmd.Stdout = stdout
	}
	return watch(t, cmd)
}

// forwardTo is a command line that forwards to upstream and logs JSON.
func forwardTo(upstream net.Addr, args ...string) []string {
	return append([]string{"run", "--mode", "forward", "--listen", "127.0.0.1:0", "--upstream", upstream.String(), "--log-format", "json"}, args...)
}

// watch starts a command and reads its log.
func watch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stderr = bufio.NewScanner(stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	return p
}

// line waits for the log line with a message, and returns its fields.
func (p *process) line(message string) map[string]any {
	p.t.Helper()
	for p.stderr.Scan() {
		p.seen = append(p.seen, p.stderr.Text())
		fields := map[string]any{}
		if json.Unmarshal(p.stderr.Bytes(), &fields) == nil && strings.HasPrefix(fields["msg"].(string), message) {
			return fields
		}
	}
	p.t.Fatalf("no %q in the log:\n%s", message, strings.Join(p.seen, "\n"))
	return nil
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait reads the log to its end and returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	for p.stderr.Scan() {
		p.seen = append(p.seen, p.stderr.Text())
	}
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// last is the last line on standard error.
func (p *process) last() string { return p.seen[len(p.seen)-1] }

// echo is a server that sends back what it gets.
func echo(t *testing.T) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.Copy(c, c); err == nil {
					c.(*net.TCPConn).CloseWrite()
				}
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr()
}

// run runs tprelay to its end.
func run(t *testing.T, cmd *exec.Cmd) (status int, stdout, stderr string) {
	t.Helper()
	var out, errors strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), errors.String()
}

func TestProcessExitStatus(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"version"}, cli.OK, ""},
		{[]string{"run", "--help"}, cli.OK, ""},
		{[]string{"run", "--mode", "forward", "--listen", ":1"}, cli.Usage, "needs --upstream"},
		{[]string{"run", "--mode", "forward", "--listen", taken.Addr().String(), "--upstream", "127.0.0.1:1"},
			cli.Failure, "tprelay: listen " + taken.Addr().String() + ": bind: address already in use; "},
		{[]string{"run", "--mode", "forward", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--access-log", "/nowhere/at/all"},
			cli.Failure, "tprelay: access log: open /nowhere/at/all: no such file or directory"},
	} {
		status, _, stderr := run(t, command(t, c.args...))
		if status != c.status || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: status %d, %q; want %d, %q", c.args, status, stderr, c.status, c.want)
		}
		if c.status != cli.OK && strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: not one line: %q", c.args, stderr)
		}
	}
}

func TestProcessWithoutPrivilegeSaysWhatToDo(t *testing.T) {
	cmd := command(t, "run", "--mode", "tproxy", "--listen", "127.0.0.1:9091")
	if os.Geteuid() == 0 {
		asOther(t, cmd)
	}
	status, _, stderr := run(t, cmd)
	if want := "tprelay: listen 127.0.0.1:9091: IP_TRANSPARENT: operation not permitted; run as root or grant CAP_NET_ADMIN\n"; status != cli.Failure || stderr != want {
		t.Errorf("status %d, %q; want %q", status, stderr, want)
	}
}

// testCommand runs one test of this binary alone, with more in its environment.
func testCommand(test string, variables ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), variables...)
	return cmd
}

// copyOfProgram is a file with this binary that every user may run, for the test to
// replace if it likes.
func copyOfProgram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tprelay-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tprelay")
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// get gives what an address of the admin end shows.
func get(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(body)
}
