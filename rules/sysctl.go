package rules

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
	"github.com/vishvananda/netlink"
)

// procSys resolves net/ to the network namespace of the reading thread.
const procSys = "/proc/sys"

// sysctl is a kernel setting that the rules depend on.
type sysctl struct {
	path string // net/ipv4/conf/eth1/rp_filter
	want string
	why  string
	// all is a second setting; the larger of the two is in effect.
	all string
	// bad lists the effective values that break the rules. Empty: every value except want.
	bad []int
	// perInterface requires the same setting on every other interface.
	perInterface bool
	// bridge: the setting matters only if an incoming interface is a bridge or a port of one.
	bridge bool
}

// sysctls returns the settings that c depends on, without looking at the host.
func (c Config) sysctls() []sysctl {
	const conf4 = "net/ipv4/conf/"
	var out []sysctl
	for _, t := range c.targets() {
		forward, filter := "net/ipv4/ip_forward", "iptables"
		if t.v6 {
			forward, filter = "net/ipv6/conf/all/forwarding", "ip6tables"
		}
		out = append(out, sysctl{path: forward, want: "1",
			why: "packets that are not diverted must be forwarded"})
		if !t.v6 && c.routed() {
			out = append(out, sysctl{path: conf4 + "all/src_valid_mark", want: "0", perInterface: true,
				why: "otherwise the source address check uses the mark, and every marked packet is silently dropped as a martian"})
		}
		if !t.v6 {
			for _, name := range c.In {
				out = append(out, sysctl{path: conf4 + name + "/rp_filter", want: "2", all: conf4 + "all/rp_filter", bad: []int{1},
					why: "strict reverse-path filtering drops packets whose return route uses another interface"})
				if c.Mode == tproxy.Redirect && t.addr.IsLoopback() {
					out = append(out, sysctl{path: conf4 + name + "/route_localnet", want: "1", all: conf4 + "all/route_localnet", bad: []int{0},
						why: "connections redirected to a loopback address are dropped without it"})
				}
			}
		}
		out = append(out, sysctl{path: "net/bridge/bridge-nf-call-" + filter, want: "0", bridge: true,
			why: "bridged packets would go through these rules in the bridge already, and be lost"})
	}
	if c.Mode == tproxy.TPROXY {
		out = append(out, sysctl{path: "net/ipv4/tcp_syncookies", want: "1", bad: []int{2},
			why: "only SYNs are diverted; the client's ACK of an unconditional SYN cookie would not reach the relay"})
	}
	return out
}

// name returns the name for sysctl(8): with slashes if an interface name has a dot.
func (s sysctl) name() string {
	if strings.Contains(s.path, ".") {
		return s.path
	}
	return strings.ReplaceAll(s.path, "/", ".")
}

func (s sysctl) command() string { return "sysctl -w " + s.name() + "=" + s.want }

// SysctlProblems returns one Problem for each kernel setting that would break the rules of c.
// It changes nothing.
func SysctlProblems(c Config) ([]Problem, error) {
	wrong, err := c.wrongSysctls()
	var out []Problem
	for _, s := range wrong {
		value, _ := readSysctl(s.path)
		out = append(out, Problem{
			What: fmt.Sprintf("sysctl %s is %s, want %s: %s", s.name(), value, s.want, s.why),
			Fix:  s.command(),
		})
	}
	return out, err
}

// wrongSysctls returns the settings with a wrong value. A setting that does not exist (no such
// interface, no bridge module) is not wrong.
func (c Config) wrongSysctls() ([]sysctl, error) {
	var wrong []sysctl
	for _, s := range c.sysctls() {
		if s.bridge && !c.bridged() {
			continue
		}
		each := []sysctl{s}
		if s.perInterface {
			paths, err := perInterface(s.path)
			if err != nil {
				return nil, err
			}
			for _, path := range paths {
				other := s
				other.path = path
				each = append(each, other)
			}
		}
		for _, s := range each {
			bad, err := s.wrong()
			if err != nil {
				return nil, err
			} else if bad {
				wrong = append(wrong, s)
			}
		}
	}
	return wrong, nil
}

func (s sysctl) wrong() (bool, error) {
	value, err := readSysctl(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if len(s.bad) == 0 {
		return value != s.want, nil
	}
	effective, err := strconv.Atoi(value)
	if err != nil {
		return false, fmt.Errorf("sysctl %s: %w", s.path, err)
	}
	if s.all != "" {
		if text, err := readSysctl(s.all); err == nil {
			all, _ := strconv.Atoi(text)
			effective = max(effective, all)
		}
	}
	return slices.Contains(s.bad, effective), nil
}

// perInterface returns the paths of the setting path (…/conf/all/NAME) for every existing
// interface.
func perInterface(path string) ([]string, error) {
	conf, name := filepath.Dir(filepath.Dir(path)), filepath.Base(path)
	entries, err := os.ReadDir(filepath.Join(procSys, conf))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if e.Name() != "all" && e.Name() != "default" {
			paths = append(paths, filepath.Join(conf, e.Name(), name))
		}
	}
	return paths, nil
}

// bridged reports whether an incoming interface is a bridge or a port of one.
func (c Config) bridged() bool {
	for _, name := range c.In {
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue
		}
		if link.Type() == "bridge" {
			return true
		}
		if master := link.Attrs().MasterIndex; master != 0 {
			if m, err := netlink.LinkByIndex(master); err == nil && m.Type() == "bridge" {
				return true
			}
		}
	}
	return false
}

// isNetSysctl reports whether path, relative to procSys, is a plain path below net.
func isNetSysctl(path string) bool {
	return filepath.IsLocal(path) && filepath.Clean(path) == path && strings.HasPrefix(path, "net/")
}

// openSysctl opens a setting below net. Neither .. nor a symbolic link in path can lead out of
// that directory.
func openSysctl(path string, flag int) (*os.File, error) {
	if !isNetSysctl(path) {
		return nil, fmt.Errorf("%q is not below %s/net", path, procSys)
	}
	root, err := os.OpenRoot(filepath.Join(procSys, "net"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(strings.TrimPrefix(path, "net/"), flag, 0)
}

func readSysctl(path string) (string, error) {
	f, err := openSysctl(path, os.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func writeSysctl(path, value string) error {
	f, err := openSysctl(path, os.O_WRONLY)
	if err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}
