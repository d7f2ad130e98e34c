package engine_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleVariable says as what this binary runs when it is not the test.
const roleVariable = "TPRELAY_TEST_ROLE"

// roles are what this binary can be besides the test. Their descriptors and memory belong to
// another process.
var roles = map[string]func(commands *bufio.Scanner){
	"idle ends":    serveEnds,
	"stalled ends": serveStalledEnds,
	"relay":        serveMeasured,
	"abusers":      serveAbusers,
}

// TestMain lets this binary be the relay of a test, or its other ends; or a relay whose
// system calls fail.
func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		role(bufio.NewScanner(os.Stdin))
		return
	}
	if os.Getenv(relayVariable) != "" {
		serveRelay()
		return
	}
	os.Exit(m.Run())
}

// child is this binary in a role. It is told a line, and answers with a line; it ends
// when its input does.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startChild runs the binary in that role.
func startChild(role string) (*child, error) {
	cmd := exec.Command("/proc/self/exe")
	// The race detector would let each child sleep for a second before it exits.
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

func (c *child) line() (string, error) {
	defer c.bounded()()
	s, err := c.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// bounded ends a child that is waited for for too long, in a way that shows where it hangs.
func (c *child) bounded() (waited func()) {
	t := time.AfterFunc(5*patience, func() { c.cmd.Process.Signal(syscall.SIGQUIT) })
	return func() { t.Stop() }
}

// ask gives the answer to a command.
func (c *child) ask(command ...any) (string, error) {
	fmt.Fprintln(c.in, command...)
	return c.line()
}

// stop waits for its end. An error can be that of the race detector.
func (c *child) stop() error {
	if c.cmd.ProcessState != nil {
		return nil // it has been waited for
	}
	defer c.bounded()()
	c.in.Close()
	return c.cmd.Wait()
}

// stopAtEnd stops it when the test ends.
func (c *child) stopAtEnd(t testing.TB) {
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("child: %v", err)
		}
	})
}

// ends are both ends of idle pairs.
type ends struct {
	*child
	server string
}

func startEnds() (*ends, error) {
	c, err := startChild("idle ends")
	if err != nil {
		return nil, err
	}
	e := &ends{child: c}
	e.server, err = e.line()
	return e, err
}

// connect opens n connections to addr and waits until the server has them all.
func (e *ends) connect(addr string, n int) error {
	if s, err := e.ask(addr, n); err != nil || s != "ok" {
		return fmt.Errorf("the other ends: %s %v", s, err)
	}
	return nil
}
