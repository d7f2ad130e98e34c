package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
	"golang.org/x/sys/unix"
)

// state is the record of what Apply did in one network namespace: the rules that Verify checks
// by default, and what Remove restores.
type state struct {
	// Boot identifies the boot, so that a record from before a reboot is ignored.
	Boot   string `json:"boot"`
	Config Config `json:"config"`
	// Mode and Listen are those of Config as text: the number of a mode is not stable, and
	// netip.AddrPort does not marshal a port without an address.
	Mode   string   `json:"mode"`
	Listen []string `json:"listen"`
	// Sysctls are in the order in which they are restored.
	Sysctls []change `json:"sysctls,omitempty"`
	// Foreign are routing entries that existed before Apply. Remove keeps them.
	Foreign []string `json:"foreign,omitempty"`
	// NewTables are iptables tables ("iptables mangle") that did not exist.
	NewTables []string `json:"new_tables,omitempty"`
}

// change is one kernel setting that Apply changed.
type change struct {
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Applied returns the Config that is applied in the network namespace of the calling thread,
// according to the record in dir ("": DefaultStateDir). ok is false if there is no record.
func Applied(dir string) (cfg Config, ok bool, err error) {
	if dir == "" {
		dir = DefaultStateDir
	}
	s, err := loadState(dir)
	if err != nil || s == nil {
		return Config{}, false, err
	}
	return s.Config, true, nil
}

// stateName returns the file name of the record for the network namespace of the calling
// thread. It contains the namespace's cookie, which, unlike the inode number, is not reused
// before the next boot.
func stateName() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) { // before Linux 5.14
		var st unix.Stat_t
		err = unix.Stat("/proc/thread-self/ns/net", &st)
		cookie = st.Ino
	}
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	return fmt.Sprintf("rules-%d.json", cookie), nil
}

// loadState returns nil if there is no record of this namespace since boot.
func loadState(dir string) (*state, error) {
	d, err := openStateDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer d.close()
	text, path, err := d.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	s := new(state)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read state %s: %w; delete the file if tprelay did not write it", path, err)
	}
	if s.Boot != bootID() {
		return nil, nil
	}
	if s.Config.Mode, err = tproxy.ParseMode(s.Mode); err != nil {
		return nil, fmt.Errorf("read state %s: %w", path, err)
	}
	s.Config.Listen = make([]netip.AddrPort, len(s.Listen))
	for i, text := range s.Listen {
		if s.Config.Listen[i], err = ParseListen(text); err != nil {
			return nil, fmt.Errorf("read state %s: %w", path, err)
		}
	}
	s.Config.StateDir = dir
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("read state %s: %w; delete the file if tprelay did not write it", path, err)
	}
	return s, nil
}

// save writes the record. A reader sees either the old or the new record, complete.
func (s *state) save(dir string) error {
	d, err := openStateDir(dir)
	if err != nil {
		return err
	}
	defer d.close()
	s.Boot = bootID()
	s.Mode, s.Listen = s.Config.Mode.String(), nil
	for _, l := range s.Config.Listen {
		if l.Addr().IsValid() {
			s.Listen = append(s.Listen, l.String())
		} else {
			s.Listen = append(s.Listen, fmt.Sprintf(":%d", l.Port()))
		}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = d.write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// check returns an error for a record that Apply cannot have written.
func (s *state) check() error {
	for _, ch := range s.Sysctls {
		if !isNetSysctl(ch.Path) {
			return fmt.Errorf("sysctl %q is not below %s/net", ch.Path, procSys)
		}
	}
	return s.Config.Validate()
}

// dropState deletes the record, and the directory if it is then empty. The caller holds the
// lock.
func dropState(dir string) error {
	d, err := openStateDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer d.close()
	if err := d.remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete state: %w", err)
	}
	_ = os.Remove(dir) // fails if the directory is not empty
	return nil
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}
