package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
)

// needOtherUsers skips the test unless it may start programs as other users.
func needOtherUsers(t *testing.T) {
	t.Helper()
	if err := netlab.OtherUsers(); err != nil {
		t.Skip(err)
	}
}

// TestForwardModeNeedsNoPrivileges: no rules, no capabilities, not root.
func TestForwardModeNeedsNoPrivileges(t *testing.T) {
	needOtherUsers(t)
	for _, family := range []string{"v4", "v6"} {
		t.Run(family, func(t *testing.T) {
			lab := newLab(t, netlab.Config{})
			relay, server := lab.H2.Addr4, lab.H3.Addr4
			if family == "v6" {
				relay, server = lab.H2.Addr6, lab.H3.Addr6
			}
			nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
			d := startDaemon(t, lab.H2, nobody, "--mode", "forward", "--listen", netip.AddrPortFrom(relay, relayPort).String(),
				"--upstream", netip.AddrPortFrom(server, iperf3Port).String())
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
			if err != nil || !strings.Contains(string(status), "Uid:\t65534\t65534") || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
				t.Fatalf("not an ordinary user: %v\n%s", err, status)
			}
			for _, reverse := range []bool{false, true} {
				r, err := iperf3(t, lab, netlab.Iperf3Options{
					Server: netip.AddrPortFrom(relay, relayPort), Bytes: 64 * mebibyte, Streams: 4, Reverse: reverse,
				})
				if err != nil {
					t.Fatalf("%v\n%s", err, &d.said)
				}
				t.Logf("reverse %v: %.0f Mbit/s", reverse, r.Receiver/1e6)
			}
			if err := d.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.ended(t)
		})
	}
}

// TestTPROXYModeWithoutPrivilegesSaysWhatToDo: one line, status 1.
func TestTPROXYModeWithoutPrivilegesSaysWhatToDo(t *testing.T) {
	needOtherUsers(t)
	lab := newLab(t, netlab.Config{})
	c := lab.H2.Command(within(t), program(t), "run", "--mode", "tproxy", "--listen", "127.0.0.1:9091")
	var said words
	c.Stderr = &said
	c.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	err := c.Wait()
	if err == nil || !strings.Contains(said.String(), "IP_TRANSPARENT") || !strings.Contains(said.String(), "CAP_NET_ADMIN") {
		t.Errorf("%v: %s", err, &said)
	}
	if strings.Count(said.String(), "\n") != 1 {
		t.Errorf("more than one line: %s", &said)
	}
}
