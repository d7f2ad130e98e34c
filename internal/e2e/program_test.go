package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// program builds the daemon, once, where everybody may run it.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(sharedDir(t), "tprelay")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	out, err := exec.Command("go", "build", "-o", path, "github.com/tprelay/tprelay/cmd/tprelay").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// words is what a program says, while it runs.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// daemon is a running `tprelay run`.
type daemon struct {
	*netlab.Cmd
	said words
}

// startDaemon starts the program in a host and returns when it listens. A nil user is the test's
// own.
func startDaemon(t *testing.T, h *netlab.Host, user *syscall.Credential, args ...string) *daemon {
	t.Helper()
	d := &daemon{Cmd: h.Command(within(t), program(t), append([]string{"run", "--log-level", "debug"}, args...)...)}
	d.Stderr, d.Credential = &d.said, user
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := h.WaitListen(within(t), relayPort); err != nil {
		t.Fatalf("%v\n%s", err, &d.said)
	}
	return d
}

// ended waits for a clean exit.
func (d *daemon) ended(t *testing.T) {
	t.Helper()
	if err := d.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &d.said)
	}
}

// accessLine is what tests read of a line of the access log.
type accessLine struct {
	Client, Destination, Connected netip.AddrPort
	Mode, Spoof, Reason            string
	Up, Down                       struct {
		Bytes uint64
		Path  string
	}
}

func readAccessLog(t *testing.T, path string) (lines []accessLine) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var l accessLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// run runs the program once and gives its output.
func run(t *testing.T, h *netlab.Host, args ...string) (string, error) {
	t.Helper()
	out, err := h.Command(within(t), program(t), args...).Output()
	return string(out), err
}

func mustRun(t *testing.T, h *netlab.Host, args ...string) string {
	t.Helper()
	out, err := run(t, h, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TestOperatorsDay is what an operator of a gateway does: rules, relay, look, end.
func TestOperatorsDay(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	dir := t.TempDir()
	flags := []string{"--mode", "tproxy", "--listen", ":9091", "--ipv6", "--in", netlab.Left, "--state", filepath.Join(dir, "state")}
	rules := func(verb string, more ...string) []string {
		return append(append([]string{"rules", verb}, flags...), more...)
	}
	if out := mustRun(t, lab.H2, rules("print")...); !strings.Contains(out, "tproxy ip to :9091") || !strings.Contains(out, "ip rule add") {
		t.Errorf("rules print:\n%s", out)
	}
	if out, err := run(t, lab.H2, rules("verify")...); err == nil {
		t.Errorf("rules verify finds what was only printed:\n%s", out)
	}
	mustRun(t, lab.H2, rules("apply")...)
	if out, err := run(t, lab.H2, rules("verify", "--listener")...); err == nil {
		t.Errorf("rules verify finds a listener where there is none:\n%s", out)
	}

	log := filepath.Join(dir, "access.log")
	d := startDaemon(t, lab.H2, nil, "--mode", "tproxy", "--listen", ":9091", "--access-log", log)
	mustRun(t, lab.H2, rules("verify", "--listener")...)
	nginx, err := lab.H3.Nginx(within(t), httpPort, "")
	started(t, err)
	const size = 3 * mebibyte
	writeStream(t, filepath.Join(nginx.Root, "page"), 14, size)
	var curls []netip.AddrPort
	servers := []netip.Addr{lab.H3.Addr4, lab.H3.Addr6}
	for _, server := range servers {
		r, err := iperf3(t, lab, netlab.Iperf3Options{Server: netip.AddrPortFrom(server, iperf3Port), Bytes: 64 * mebibyte})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("iperf3 to %v: %.0f Mbit/s", server, r.Receiver/1e6)
		c, err := lab.H1.Curl(within(t), fmt.Sprintf("http://%v/page", netip.AddrPortFrom(server, httpPort)), nil)
		if err != nil || c.Status != 200 || c.Received != size {
			t.Fatalf("%+v, %v", c, err)
		}
		curls = append(curls, c.Local)
	}

	// One connection is open when the end comes: it goes on, but no new one is taken.
	l, err := lab.H3.Listen("tcp", netip.AddrPortFrom(lab.H3.Addr4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := lab.H1.Dial(within(t), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client.SetDeadline(time.Now().Add(patience))
	server.SetDeadline(time.Now().Add(patience))
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitNoListener(t, lab.H2)
	for range 3 {
		if _, err := client.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(server, got); err != nil || string(got) != "late" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	client.Close()
	server.Close()
	d.ended(t)
	t.Logf("it said:\n%s", &d.said)

	lines := readAccessLog(t, log)
	for i, from := range curls {
		to := netip.AddrPortFrom(servers[i], httpPort)
		found := false
		for _, line := range lines {
			if line.Client == from {
				found = true
				if line.Destination != to || line.Connected != to || line.Mode != "tproxy" || line.Spoof != "full" ||
					line.Reason != "eof" || line.Down.Bytes < size || line.Down.Path != "splice" || line.Up.Bytes == 0 {
					t.Errorf("%+v", line)
				}
			}
		}
		if !found {
			t.Errorf("no line for %v", from)
		}
	}
	if len(lines) != 7 { // two for each iperf3, one for each curl, and the late one
		t.Errorf("%d lines: %+v", len(lines), lines)
	}

	mustRun(t, lab.H2, rules("remove")...)
	out, err := lab.H2.Command(within(t), "sh", "-c", "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all").Output()
	if err != nil || strings.Contains(string(out), "tprelay") || strings.Contains(string(out), "7470") {
		t.Errorf("rules remove left, %v:\n%s", err, out)
	}
}

// awaitNoListener waits until the relay's port is closed.
func awaitNoListener(t *testing.T, h *netlab.Host) {
	t.Helper()
	ctx := within(t)
	for ctx.Err() == nil {
		out, err := h.Command(ctx, "ss", "-Hltn", fmt.Sprintf("sport = :%d", relayPort)).Output()
		if err == nil && len(out) == 0 {
			return
		}
	}
	t.Fatal("it still listens")
}

// TestPrintedScriptIsWhatApplyDoes: the script of `rules print`, run by a shell.
func TestPrintedScriptIsWhatApplyDoes(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	for _, mode := range []string{"tproxy", "redirect"} {
		flags := []string{"--mode", mode, "--listen", "[::]:9091", "--in", netlab.Left, "--state", filepath.Join(t.TempDir(), "state")}
		script := mustRun(t, lab.H2, append([]string{"rules", "print"}, flags...)...)
		sh := lab.H2.Command(within(t), "sh", "-e")
		sh.Stdin = strings.NewReader(script)
		if err := sh.Run(); err != nil {
			t.Fatalf("%v\n%s", err, script)
		}
		mustRun(t, lab.H2, append([]string{"rules", "verify"}, flags...)...)
	}
}
