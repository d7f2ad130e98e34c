package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// awaitSaid waits until the daemon and its successors have said something n times, and returns what
// the pattern's group found the last time.
func (d *daemon) awaitSaid(t *testing.T, pattern string, n int) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if found := re.FindAllStringSubmatch(d.said.String(), -1); len(found) >= n {
			return found[n-1][len(found[n-1])-1]
		}
	}
	t.Fatalf("it never said %q:\n%s", pattern, &d.said)
	return ""
}

// upgrade has process pid replaced for the nth time, and gives the number of the new one.
func (d *daemon) upgrade(t *testing.T, pid, n int) int {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	next, err := strconv.Atoi(d.awaitSaid(t, `new_pid=(\d+)`, n))
	if err != nil {
		t.Fatal(err)
	}
	d.awaitSaid(t, `took over`, n)
	awaitGone(t, pid)
	return next
}

// awaitGone waits until a process has ended.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Fatalf("process %d does not end", pid)
}

// diverted applies TPROXY rules on h2 until the test ends.
func diverted(t *testing.T, lab *netlab.Lab) {
	t.Helper()
	flags := []string{"--mode", "tproxy", "--listen", ":9091", "--ipv6", "--in", netlab.Left, "--state", filepath.Join(t.TempDir(), "state")}
	mustRun(t, lab.H2, append([]string{"rules", "apply"}, flags...)...)
	t.Cleanup(func() { mustRun(t, lab.H2, append([]string{"rules", "remove"}, flags...)...) })
}

// connect opens a connection from h1 to l on h3, in the client's name all the way.
func connect(t *testing.T, lab *netlab.Lab, l net.Listener) (ends [2]net.Conn) {
	t.Helper()
	var err error
	if ends[0], err = lab.H1.Dial(within(t), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if l, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
		l.SetDeadline(time.Now().Add(patience)) // for a connection that never comes
	}
	if ends[1], err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range ends {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
	}
	if from := ends[1].RemoteAddr().String(); from != ends[0].LocalAddr().String() {
		t.Errorf("the server sees %s, not the client %v", from, ends[0].LocalAddr())
	}
	return ends
}

// pass sends a little from one end to the other.
func pass(t *testing.T, from, to net.Conn) {
	t.Helper()
	if _, err := io.WriteString(from, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(to, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestOrdinaryUserUpgradesTPROXY: nobody, with CAP_NET_ADMIN alone, as a service manager
// starts it; and root that becomes nobody. Connections in the client's name go on, and
// can be opened after two upgrades.
func TestOrdinaryUserUpgradesTPROXY(t *testing.T) {
	nobody := []string{"--reuid", "65534", "--regid", "65534", "--clear-groups"}
	ambient := append(nobody, "--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin", "--bounding-set", "-all,+net_admin", "--no-new-privs")
	for _, c := range []struct {
		name  string
		start []string
		flags []string
		caps  string
	}{
		{"ambient", append([]string{"setpriv"}, ambient...), nil, "0000000000001000"},
		{"from root", nil, []string{"--user", "nobody"}, "0000000000001400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath("setpriv"); err != nil && c.start != nil {
				t.Skip("needs setpriv")
			}
			needOtherUsers(t)
			lab := newLab(t, netlab.Config{})
			diverted(t, lab)
			args := append(append(c.start, program(t), "run", "--mode", "tproxy", "--listen", ":9091"), c.flags...)
			d := &daemon{Cmd: lab.H2.Command(within(t), args[0], args[1:]...)}
			d.Stderr = &d.said
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			if err := lab.H2.WaitListen(within(t), relayPort); err != nil {
				t.Fatalf("%v\n%s", err, &d.said)
			}
			d.awaitSaid(t, `msg=(listening)`, 1)
			l, err := lab.H3.Listen("tcp", netip.AddrPortFrom(lab.H3.Addr4, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			first := connect(t, lab, l)
			pid := d.PID()
			for n := 1; n <= 2; n++ {
				pid = d.upgrade(t, pid, n)
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				if err != nil || !strings.Contains(string(status), "Uid:\t65534\t65534") || !strings.Contains(string(status), "CapEff:\t"+c.caps+"\n") {
					t.Errorf("%v\n%s", err, status)
				}
				now := connect(t, lab, l)
				for _, ends := range [][2]net.Conn{first, now} {
					pass(t, ends[0], ends[1])
					pass(t, ends[1], ends[0])
				}
				now[0].Close()
				now[1].Close()
			}
			first[0].Close()
			first[1].Close()
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.ended(t) // when the last one has closed what the first one left
		})
	}
}
