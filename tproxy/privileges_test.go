package tproxy_test

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

// without runs f on a thread that lacks these capabilities.
func without(t *testing.T, capabilities []uint, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, fewer [2]unix.CapUserData
	check(t, unix.Capget(&header, &all[0]))
	fewer = all
	for _, c := range capabilities {
		fewer[c/32].Effective &^= 1 << (c % 32)
	}
	check(t, unix.Capset(&header, &fewer[0]))
	defer func() { check(t, unix.Capset(&header, &all[0])) }()
	f()
}

// TestCheckSaysWhatDialingLacks: so that the relay fails at its start, and does not reset each
// client.
func TestCheckSaysWhatDialingLacks(t *testing.T) {
	namespace(t)
	admin, raw := uint(unix.CAP_NET_ADMIN), uint(unix.CAP_NET_RAW)
	for _, c := range []struct {
		what  string
		lacks []uint
		mark  uint32
		spoof bool
		want  string
	}{
		{"all there", nil, 7, true, ""},
		{"nothing needed", []uint{admin, raw}, 0, false, ""},
		{"CAP_NET_RAW alone, to spoof", []uint{admin}, 0, true, ""},
		{"CAP_NET_RAW alone, to mark", []uint{admin}, 7, false, ""},
		{"CAP_NET_ADMIN alone", []uint{raw}, 7, true, ""},
		{"neither, to spoof", []uint{admin, raw}, 0, true, "IP_TRANSPARENT"},
		{"neither, to mark", []uint{admin, raw}, 7, false, "SO_MARK"},
	} {
		d := tproxy.Dialer{Mark: c.mark}
		without(t, c.lacks, func() {
			err := d.Check(c.spoof)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s: %v", c.what, err)
			case c.want == "":
				// Dial works if and only if Check passes.
				level := tproxy.LevelNone
				if c.spoof {
					level = tproxy.LevelIP
				}
				fd, _, err := d.Dial(at(clientV4, 7), at(serverV4, 9), level)
				if err == nil {
					unix.Close(fd)
				}
				if err == unix.EPERM || err == unix.EACCES {
					t.Errorf("%s: Dial: %v", c.what, err)
				}
			case err == nil:
				t.Errorf("%s: passed", c.what)
			case !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") || strings.Contains(err.Error(), "\n"):
				t.Errorf("%s: %v", c.what, err)
			}
		})
	}
}
