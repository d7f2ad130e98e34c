package engine_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets this binary also be the other end of the idle pairs: half of the
// descriptors then belong to another process, and its memory is not the relay's. Or a
// relay whose system calls fail.
func TestMain(m *testing.M) {
	if os.Getenv("TPRELAY_TEST_ENDS") != "" {
		serveEnds()
		return
	}
	if os.Getenv(relayVariable) != "" {
		serveRelay()
		return
	}
	// The first socket opens Go's own poller, which stays: before anybody counts.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	os.Exit(m.Run())
}

type ends struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	server string
}

func startEnds() (*ends, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "TPRELAY_TEST_ENDS=1")
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
	e := &ends{cmd: cmd, in: in, out: bufio.NewReader(out)}
	e.server, err = e.line()
	return e, err
}

func (e *ends) line() (string, error) {
	s, err := e.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// connect opens n connections to addr and waits until the server has them all.
func (e *ends) connect(addr string, n int) error {
	fmt.Fprintln(e.in, addr, n)
	if s, err := e.line(); err != nil || s != "ok" {
		return fmt.Errorf("the other ends: %s %v", s, err)
	}
	return nil
}

func (e *ends) stop() {
	e.in.Close()
	e.cmd.Wait()
}
