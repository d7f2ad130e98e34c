package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/leak"
)

// Faults that real sockets do not make on demand are made by strace(1): a relay in a
// process of its own runs under it, some of its system calls fail, and real traffic goes
// through all the while. (EAGAIN is not among them where it would be a lie: an event that
// was told once does not come again.)

// fault is what strace is to do. It counts the calls of each thread for itself: where the
// first ones must succeed, for the relay to start, one loop makes the others.
type fault struct {
	name   string
	inject string // as for strace -e inject=
	// What may come of it: dials or pairs that fail, which is told by a reset. Else every
	// byte must arrive.
	mayFail bool
	narrow  bool   // with small socket buffers, so that bytes wait in the relay
	relay   string // what the relay is to do otherwise than by default; see relayOptions
	seen    func(relayReport) bool
}

var faults = []fault{
	{name: "splice is refused now and then", inject: "splice:error=EINVAL:when=3+5", seen: func(r relayReport) bool { return r.Stats.SpliceRefused > 0 }},
	{name: "splice is refused from the start", inject: "splice:error=EINVAL", seen: func(r relayReport) bool { return r.Stats.SpliceRefused > 0 }},
	{name: "splice is refused when pipes hold bytes", inject: "splice:error=EINVAL:when=2+2", seen: func(r relayReport) bool { return r.Stats.SpliceRefused > 0 }},
	{name: "splice is interrupted", inject: "splice:error=EINTR:when=1+2"},
	{name: "splice breaks down", inject: "splice:error=ENOMEM:when=40+40", mayFail: true},
	{name: "no pipes", inject: "pipe2:error=EMFILE", seen: func(r relayReport) bool { return r.Stats.PipeMisses > 0 }},
	{name: "no pipes now and then", inject: "pipe2:error=ENFILE:when=1+2", relay: "keep no pipes"},
	{name: "reads are interrupted", inject: "recvfrom:error=EINTR:when=1+3"},
	{name: "reads break down", inject: "recvfrom:error=ENOMEM:when=5+5", mayFail: true},
	{name: "writes are interrupted", inject: "sendto:error=EINTR:when=1+3"},
	{name: "writes run out of memory", inject: "sendto:error=ENOMEM:when=5+5", mayFail: true},
	{name: "writes of what waited are interrupted", inject: "sendmsg:error=EINTR:when=1+3", narrow: true, relay: "no splice"},
	{name: "writes of what waited run out of memory", inject: "sendmsg:error=ENOMEM:when=5+5", mayFail: true, narrow: true, relay: "no splice"},
	{name: "waiting is interrupted", inject: "epoll_pwait:error=EINTR:when=1+3"},
	{name: "accepted connections are gone", inject: "accept4:error=ECONNABORTED:when=1+2"},
	{name: "accepting is interrupted", inject: "accept4:error=EINTR:when=1+2"},
	{name: "accepted connections are broken", inject: "accept4:error=EPROTO:when=1+3"},
	{name: "no descriptors in the process to accept", inject: "accept4:error=EMFILE:when=2+3"},
	{name: "no descriptors in the system to accept", inject: "accept4:error=ENFILE:when=1+3"},
	{name: "no buffers to accept", inject: "accept4:error=ENOBUFS:when=1+3"},
	{name: "no memory to accept", inject: "accept4:error=ENOMEM:when=1+3"},
	{name: "no descriptors to dial", inject: "socket:error=EMFILE:when=4+3", relay: "one loop"},
	{name: "no buffers to dial", inject: "socket:error=ENOBUFS:when=4+3", relay: "one loop"},
	{name: "no memory to dial", inject: "socket:error=ENOMEM:when=4+3", relay: "one loop"},
	{name: "dialling is not permitted", inject: "connect:error=EPERM:when=2+2", mayFail: true},
	{name: "dialling finds no port", inject: "connect:error=EADDRNOTAVAIL:when=2+2", mayFail: true},
	{name: "events cannot be had", inject: "epoll_ctl:error=ENOMEM:when=5+3", mayFail: true, relay: "one loop"},
}

func TestSystemCallsThatFailLoseNothing(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	for _, f := range faults {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) { f.run(t, strace) })
	}
}

// faultPairs pairs transfer faultBytes each way, faultRounds times.
const (
	faultPairs  = 8
	faultRounds = 2
	faultBytes  = 400_000
)

func (f fault) run(t *testing.T, strace string) {
	leak.Check(t)
	enter := func() error { return nil }
	if f.narrow {
		enter = engine.PrivateNetwork(t, smallBuffers)
	}
	server, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	data := noise(faultBytes)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := server.AcceptTCP()
			if err != nil {
				return
			}
			served.Go(func() { f.transfer(t, "server", c, data) })
		}
	})
	defer served.Wait()
	defer server.Close()

	log := t.TempDir() + "/strace"
	call, _, _ := strings.Cut(f.inject, ":")
	r := startRelay(t, []string{strace, "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-o", log, "-e", "trace=" + call, "-e", "inject=" + f.inject},
		f.relay, server.Addr().String())
	for range faultRounds {
		var clients sync.WaitGroup
		for range faultPairs {
			clients.Go(func() {
				runtime.LockOSThread() // never unlocked: it ends with the goroutine
				if err := enter(); err != nil {
					t.Error(err)
					return
				}
				c, err := net.DialTimeout("tcp4", r.address, patience)
				if err != nil {
					if !f.mayFail || !errors.Is(err, unix.ECONNRESET) {
						t.Errorf("dial: %v", err)
					}
					return
				}
				f.transfer(t, "client", c.(*net.TCPConn), data)
			})
		}
		clients.Wait()
	}
	report := r.end()
	s := report.Stats
	if s.Active != 0 || s.Pending != 0 || s.Memory != 0 || s.PipesInUse != 0 || s.PipesIdle != 0 || s.Buffers != 0 || report.Left != 0 {
		t.Errorf("left behind: %d descriptors, %+v", report.Left, s)
	}
	ended := uint64(0)
	for _, n := range s.Ended {
		ended += n
	}
	switch {
	case !f.mayFail && (s.Ended["eof"] != ended || ended != faultPairs*faultRounds):
		t.Errorf("pairs ended like this: %v", s.Ended)
	case ended != s.Accepted:
		t.Errorf("%d were accepted, and ended like this: %v", s.Accepted, s.Ended)
	}
	if f.seen != nil && !f.seen(report) {
		t.Errorf("the relay has not seen it: %+v", s)
	}
	if trace, err := os.ReadFile(log); err != nil || !bytes.Contains(trace, []byte("(INJECTED)")) {
		t.Errorf("nothing was injected: %v\n%.2000s", err, trace)
	}
}

// transfer sends data and a FIN, and reads the same.
func (f fault) transfer(t *testing.T, who string, c *net.TCPConn, data []byte) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	sent := sendAll(c, data, true)
	got, err := io.ReadAll(c)
	broken := errors.Is(err, unix.ECONNRESET)
	if err := <-sent; err != nil && !(f.mayFail && isBroken(err)) {
		t.Errorf("%s: write: %v", who, err)
	} else if err != nil {
		broken = true // of this, only the write was told
	}
	switch {
	case err != nil && !broken, broken && !f.mayFail:
		t.Errorf("%s: after %d of %d bytes: %v", who, len(got), len(data), err)
	case !broken && !bytes.Equal(got, data):
		t.Errorf("%s: a clean end after %d of %d bytes; these are right: %v", who, len(got), len(data), bytes.HasPrefix(data, got))
	case !bytes.HasPrefix(data, got):
		t.Errorf("%s: %d wrong bytes before a reset", who, len(got))
	}
}

// isBroken: what a write or a FIN says of a connection that was reset.
func isBroken(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ENOTCONN)
}

// relayReport is what a relay in another process says when it has ended.
type relayReport struct {
	Left  int // descriptors that were not open before
	Stats struct {
		Accepted, Opened, Pauses, PipeMisses, SpliceRefused, UpstreamSplice, UpstreamBuffer uint64
		Active, Pending, Memory, PipesInUse, PipesIdle, Buffers                             int64
		Ended                                                                               map[string]uint64
	}
}

// relayProcess is a relay in another process: this test binary again.
type relayProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	stderr  bytes.Buffer
	address string
}

// startRelay runs a relay in front of upstream, behind the words of under.
func startRelay(t *testing.T, under []string, options, upstream string) *relayProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(under, exe)
	r := &relayProcess{t: t, cmd: exec.Command(words[0], words[1:]...)}
	// Otherwise a program with the race detector sleeps for a second when it ends.
	r.cmd.Env = append(os.Environ(), relayVariable+"="+upstream, relayOptionsVariable+"="+options, "GORACE=atexit_sleep_ms=0")
	r.cmd.Stderr = &r.stderr
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = json.NewDecoder(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.in.Close() // the relay ends by itself, also when strace has gone before it
		if r.cmd.ProcessState == nil {
			r.cmd.Process.Kill()
			r.cmd.Wait()
		}
	})
	if err := r.out.Decode(&r.address); err != nil {
		r.in.Close()
		r.cmd.Wait()
		t.Fatalf("the relay did not start: %v\n%s", err, &r.stderr)
	}
	return r
}

// end lets the relay end, and returns what it says.
func (r *relayProcess) end() (report relayReport) {
	r.t.Helper()
	r.in.Close()
	if err := r.out.Decode(&report); err != nil {
		r.t.Errorf("the relay's report: %v", err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("the relay's process: %v\n%s", err, &r.stderr)
	}
	return report
}
