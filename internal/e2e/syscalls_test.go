package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
)

// securityDocument has the list of system calls, between two lines.
const securityDocument = "../../docs/security.md"

const beforeList, afterList = "<!-- system calls, by TestSystemCallsAreListed -->\n\n", "\n<!-- end -->"

// traced is what a line of strace begins with.
var traced = regexp.MustCompile(`(?m)^\d+ +(\w+)\(`)

// TestSystemCallsAreListed runs the daemon through all that it does under strace and
// fails for a call that the list in docs/security.md lacks, on which seccomp filters
// are built. TPRELAY_UPDATE_SYSCALLS=1 adds what is missing to the list.
func TestSystemCallsAreListed(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	found := map[string]bool{}
	for _, cgo := range []string{"0", "1"} { // with cgo the C library makes calls of its own
		path := filepath.Join(sharedDir(t), "tprelay-cgo"+cgo)
		build := exec.Command("go", "build", "-o", path, "github.com/tprelay/tprelay/cmd/tprelay")
		build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		t.Run("cgo "+cgo, func(t *testing.T) { runTraced(t, path, found) })
	}
	listed := map[string]bool{}
	for _, name := range listedCalls(t) {
		listed[name] = true
	}
	var missing []string
	for name := range found {
		if !listed[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("TPRELAY_UPDATE_SYSCALLS") == "" {
		t.Fatalf("not listed: %q; TPRELAY_UPDATE_SYSCALLS=1 adds them", slices.Sorted(slices.Values(missing)))
	}
	maps.Copy(listed, found)
	var b strings.Builder
	width := 0
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if width += len(name) + 1; width > 100 {
			b.WriteString("\n")
			width = len(name) + 1
		}
		fmt.Fprintf(&b, "%s ", name)
	}
	lines := strings.ReplaceAll("    "+strings.ReplaceAll(b.String(), "\n", "\n    "), " \n", "\n")
	head, _, tail := documentParts(t)
	if err := os.WriteFile(securityDocument, []byte(head+beforeList+strings.TrimRight(lines, " ")+"\n"+afterList+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// documentParts are what comes before the list, the list, and the rest.
func documentParts(t *testing.T) (head, list, tail string) {
	t.Helper()
	text, err := os.ReadFile(securityDocument)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, begins := strings.Cut(string(text), beforeList)
	list, tail, ends := strings.Cut(rest, afterList)
	if !begins || !ends {
		t.Fatalf("%s has no list of system calls", securityDocument)
	}
	return head, list, tail
}

// listedCalls are the system calls that docs/security.md lists.
func listedCalls(t *testing.T) []string {
	t.Helper()
	_, list, _ := documentParts(t)
	return strings.Fields(list)
}

// runTraced has the daemon at path divert and move bytes on every path, log, answer,
// be upgraded and end, and notes the system calls of all its processes.
func runTraced(t *testing.T, path string, found map[string]bool) {
	lab := newLab(t, netlab.Config{})
	diverted(t, lab)
	dir := t.TempDir()
	trace, log := filepath.Join(dir, "trace"), filepath.Join(dir, "access.log")
	d := &daemon{Cmd: lab.H2.Command(within(t), "strace", "-f", "-qq", "-o", trace,
		path, "run", "--mode", "tproxy", "--listen", ":9091", "--access-log", log, "--admin", "127.0.0.1:9092", "--mark", "7",
		"--deny", "192.0.2.0/24", "--max-pairs-per-source", "50", "--keep-alive", "30s", "--keep-alive-interval", "3s", "--user-timeout", "1m")}
	d.Stderr = &d.said
	d.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "none"), "WATCHDOG_USEC=200000")
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := lab.H2.WaitListen(within(t), relayPort); err != nil {
		t.Fatalf("%v\n%s", err, &d.said)
	}
	d.awaitSaid(t, `msg=(listening)`, 1)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(children))[0])
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.H3.Listen("tcp", netip.AddrPortFrom(lab.H3.Addr4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stays := connect(t, lab, l)
	for n := 1; n <= 2; n++ {
		for _, server := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
			if _, err := iperf3(t, lab, netlab.Iperf3Options{Server: netip.AddrPortFrom(server, iperf3Port), Bytes: 8 * mebibyte, Reverse: n == 2}); err != nil {
				t.Fatalf("%v\n%s", err, &d.said)
			}
		}
		if c, err := lab.H1.Dial(within(t), "tcp", netip.AddrPortFrom(lab.H3.Addr4, 1).String()); err == nil { // refused
			c.Close()
		}
		pass(t, stays[0], stays[1])
		if out, err := lab.H2.Command(within(t), "curl", "-sf", "http://127.0.0.1:9092/metrics").Output(); err != nil || !strings.Contains(string(out), "process_open_fds") {
			t.Errorf("metrics: %v\n%s", err, out)
		}
		if _, err := lab.H2.Command(within(t), "curl", "-sf", "http://127.0.0.1:9092/pairs").Output(); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		d.awaitSaid(t, `(access log reopened)`, n)
		if n == 1 {
			pid = d.upgrade(t, pid, 1)
		}
	}
	stays[0].Close()
	stays[1].Close()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ended(t)
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range traced.FindAllStringSubmatch(string(text), -1) {
		found[call[1]] = true
	}
	if !found["splice"] || !found["epoll_wait"] && !found["epoll_pwait"] {
		t.Errorf("that is no trace of a relay: %v", slices.Sorted(maps.Keys(found)))
	}
}
