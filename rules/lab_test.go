package rules_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// TestMain enters a user namespace where the tests do not run as root.
func TestMain(m *testing.M) {
	os.Exit(netlabtest.Main(m))
}

// tool is a back end in one of the forms in which hosts have it.
type tool struct {
	name    string
	backend rules.Backend
	legacy  bool
}

func tools() []tool {
	return []tool{{"nft", rules.NFT, false}, {"iptables", rules.IPTables, false}, {"legacy", rules.IPTables, true}}
}

// use makes the plain program names mean this tool for the rest of the test.
func (b tool) use(t *testing.T) {
	t.Helper()
	if b.backend == rules.NFT {
		need(t, "nft")
		return
	}
	flavour := "-nft"
	if b.legacy {
		flavour = "-legacy"
	}
	dir := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, end := range []string{"", "-save", "-restore"} {
			path := need(t, name+flavour+end)
			if err := os.Symlink(path, filepath.Join(dir, name+end)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}

func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	return netlabtest.New(t, netlab.Config{})
}

// ports of the lab: the relay's, and of servers on h3.
const (
	relayPort  = 9091
	serverPort = 8080
	sshPort    = 22
)

// families are the ways to choose families by listener.
type families struct {
	name   string
	listen []string
	v4, v6 bool
}

func allFamilies(mode tproxy.Mode) []families {
	one := []string{"127.0.0.1:9091", "[::1]:9091"}
	if mode == tproxy.Redirect {
		one = []string{"127.0.0.1:9091", "[fd77:1::2]:9091"}
	}
	return []families{
		{"v4", one[:1], true, false},
		{"v6", one[1:], false, true},
		{"both", []string{"[::]:9091"}, true, true},
	}
}

func (f families) config(t *testing.T, mode tproxy.Mode, b tool) rules.Config {
	t.Helper()
	cfg := rules.Config{Mode: mode, In: []string{netlab.Left}, Backend: b.backend, StateDir: filepath.Join(t.TempDir(), "state")}
	for _, text := range f.listen {
		listen, err := rules.ParseListen(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = append(cfg.Listen, listen)
	}
	return cfg
}

// destinations are the servers' addresses of the families.
func (f families) destinations(lab *netlab.Lab) []netip.Addr {
	var out []netip.Addr
	if f.v4 {
		out = append(out, lab.H3.Addr4)
	}
	if f.v6 {
		out = append(out, lab.H3.Addr6)
	}
	return out
}

// each runs a test with every tool, mode and choice of families; those of one tool
// in parallel, for the choice of a tool is the process's.
func each(t *testing.T, run func(t *testing.T, b tool, mode tproxy.Mode, f families)) {
	for _, b := range tools() {
		t.Run(b.name, func(t *testing.T) {
			b.use(t)
			for _, mode := range []tproxy.Mode{tproxy.TPROXY, tproxy.Redirect} {
				for _, f := range allFamilies(mode) {
					t.Run(fmt.Sprintf("%v/%s", mode, f.name), func(t *testing.T) {
						t.Parallel()
						run(t, b, mode, f)
					})
				}
			}
		})
	}
}

func apply(t *testing.T, h *netlab.Host, cfg rules.Config) {
	t.Helper()
	if err := h.Do(func() error { return rules.Apply(context.Background(), cfg) }); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

func remove(t *testing.T, h *netlab.Host, cfg rules.Config) {
	t.Helper()
	if err := h.Do(func() error { return rules.Remove(context.Background(), cfg) }); err != nil {
		t.Fatalf("remove: %v", err)
	}
}

func verify(t *testing.T, h *netlab.Host, cfg rules.Config) []rules.Problem {
	t.Helper()
	var problems []rules.Problem
	err := h.Do(func() (err error) {
		problems, err = rules.Verify(context.Background(), cfg)
		return err
	})
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return problems
}

// shell runs a command on h and gives its output.
func shell(t *testing.T, h *netlab.Host, command string) string {
	t.Helper()
	out, err := h.Command(t.Context(), "sh", "-c", command).Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// snapshot is all that rules could change on h, as text.
func snapshot(t *testing.T, h *netlab.Host) string {
	t.Helper()
	// The kernel tells routes of a link's carrier some time after it came up.
	for end := time.Now().Add(30 * time.Second); strings.Contains(shell(t, h, "ip route; ip -6 route"), "linkdown") && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	text := shell(t, h, `nft -s list ruleset; (iptables-save; ip6tables-save) | sed '/^#/d; s/ \[[0-9]*:[0-9]*\]//'
		ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | sed 's/ expires [0-9]*sec//'`)
	var settings []string
	err := h.Do(func() error {
		for _, pattern := range []string{"ipv4/conf/*/*", "ipv6/conf/*/forwarding", "ipv4/ip_forward", "ipv4/tcp_syncookies", "bridge/*"} {
			paths, err := filepath.Glob("/proc/sys/net/" + pattern)
			if err != nil {
				return err
			}
			for _, path := range paths {
				value, err := os.ReadFile(path)
				if err != nil {
					continue
				}
				settings = append(settings, path+" = "+strings.TrimSpace(string(value)))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(settings)
	return text + strings.Join(settings, "\n")
}

// same fails with the lines in which two snapshots differ.
func same(t *testing.T, when, want, have string) {
	t.Helper()
	if want == have {
		return
	}
	a, b := strings.Split(want, "\n"), strings.Split(have, "\n")
	in := func(list []string, l string) bool {
		for _, other := range list {
			if other == l {
				return true
			}
		}
		return false
	}
	for _, l := range a {
		if !in(b, l) {
			t.Errorf("%s: gone: %s", when, l)
		}
	}
	for _, l := range b {
		if !in(a, l) {
			t.Errorf("%s: new: %s", when, l)
		}
	}
	t.Errorf("%s: not as before", when)
}
