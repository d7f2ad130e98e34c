package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// stateIn is a directory with a record of this network namespace.
func stateIn(t *testing.T, sysctls ...change) (dir, path string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s := &state{Sysctls: sysctls, Config: Config{Mode: tproxy.TPROXY, In: []string{"eth1"}, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9091")}}}
	if err := s.save(dir); err != nil {
		t.Fatal(err)
	}
	name, err := stateName()
	if err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, name)
}

func TestRecordsThatOthersCanWriteAreRefused(t *testing.T) {
	do := func(t *testing.T, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	stranger := func(t *testing.T, path string) {
		t.Helper()
		if err := netlab.OtherUsers(); err != nil {
			t.Skip(err)
		}
		do(t, os.Chown(path, 1, -1))
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir, path string)
		want  string // in the error; "": it is read
	}{
		{"as it was written", func(*testing.T, string, string) {}, ""},
		{"directory of the group", func(t *testing.T, dir, _ string) { do(t, os.Chmod(dir, 0o775)) }, "other users can write it (mode 0775)"},
		{"directory of all", func(t *testing.T, dir, _ string) { do(t, os.Chmod(dir, 0o777|os.ModeSticky)) }, "other users can write it (mode 1777)"},
		{"directory of a stranger", func(t *testing.T, dir, _ string) { stranger(t, dir) }, "belongs to user 1"},
		{"link to a directory", func(t *testing.T, dir, _ string) {
			do(t, os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		}, "a symbolic link; name the directory itself"},
		{"record of the group", func(t *testing.T, _, path string) { do(t, os.Chmod(path, 0o660)) }, "other users can write it (mode 0660)"},
		{"record of a stranger", func(t *testing.T, _, path string) { stranger(t, path) }, "belongs to user 1"},
		{"link to a record", func(t *testing.T, _, path string) {
			do(t, os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		}, "is a symbolic link; delete it"},
		{"FIFO", func(t *testing.T, _, path string) { do(t, os.Remove(path), unix.Mkfifo(path, 0o600)) }, "not a file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, path := stateIn(t)
			c.spoil(t, dir, path)
			for _, dir := range []string{dir, dir + "/"} {
				s, err := loadState(dir)
				if c.want == "" && (s == nil || err != nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v, %v; want %q", s, err, c.want)
				}
				if err != nil && strings.ContainsAny(err.Error(), "\n") {
					t.Errorf("not one line: %q", err)
				}
			}
		})
	}
}

func TestLeftoverOfARecordIsNotWrittenThrough(t *testing.T) {
	dir, path := stateIn(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path+".new"); err != nil {
		t.Fatal(err)
	}
	s, err := loadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(dir); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestRecordNamesOnlyNetworkSettings: whatever a record says, nothing beside /proc/sys/net is
// opened. Only a file of the test's own is written, should that fail.
func TestRecordNamesOnlyNetworkSettings(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../.." + outside, "net/../../.." + outside, outside} {
		if err := writeSysctl(path, "0"); err == nil {
			t.Errorf("%q was written", path)
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "1" {
		t.Errorf("a file outside is %q, %v", text, err)
	}
	for _, path := range []string{
		"../.." + outside, "net/../../.." + outside, outside, "kernel/panic", "kernel/../net/ipv4/ip_forward", "net/ipv4/../../kernel/panic", "net", "net/", "",
	} {
		dir, _ := stateIn(t, change{Path: path, Old: "0", New: "1"})
		if s, err := loadState(dir); err == nil || !strings.Contains(err.Error(), "is not below /proc/sys/net; delete the file if tprelay did not write it") {
			t.Errorf("%q: %+v, %v", path, s, err)
		}
		if f, err := openSysctl(path, os.O_RDONLY); err == nil {
			f.Close()
			t.Errorf("%q was opened", path)
		}
	}
}

// TestLockIsOfTheDirectoryThatIsThere: one waits for the lock while the other removes the
// directory, and a third comes.
func TestLockIsOfTheDirectoryThatIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	second := make(chan func(), 1)
	go func() {
		unlock, err := lockState(dir)
		if err != nil {
			t.Error(err)
			unlock = func() {}
		}
		second <- unlock
	}()
	waits := func() bool {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(":%d ", st.Ino)) {
				return true
			}
		}
		return false
	}
	for !waits() {
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	unlock()
	defer (<-second)()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("the second holds a lock on nothing: %v", err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("a third gets the lock too: %v", err)
	}
}
