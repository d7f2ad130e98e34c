package rules

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// FuzzManagementFromEnv: what is taken is a flow of one family with real ports, and stays
// the same when it is written again.
func FuzzManagementFromEnv(f *testing.F) {
	for _, seed := range []string{"192.0.2.7 50000 192.0.2.1 22", "fe80::1%eth0 1 fe80::2%eth0 22", "::ffff:192.0.2.7 1 192.0.2.1 2", "a b c d", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		flows := ManagementFromEnv(value)
		if len(flows) == 0 {
			return
		}
		flow := flows[0]
		for _, a := range []netip.AddrPort{flow.Client, flow.Server} {
			if !a.IsValid() || a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().Is4In6() {
				t.Errorf("%q gives %v", value, a)
			}
		}
		again := strings.Join([]string{flow.Client.Addr().String(), strconv.Itoa(int(flow.Client.Port())),
			flow.Server.Addr().String(), strconv.Itoa(int(flow.Server.Port()))}, " ")
		if !slices.Equal(ManagementFromEnv(again), flows) {
			t.Errorf("%q gives %v, which is not read again from %q", value, flows, again)
		}
	})
}

// FuzzState: a record is refused in one line, or says something that can be written and
// read again.
func FuzzState(f *testing.F) {
	for _, seed := range []string{
		`{"boot":"BOOT","config":{"in":["eth1"]},"mode":"tproxy","listen":["127.0.0.1:9091"],"sysctls":[{"path":"net/ipv4/ip_forward","old":"0","new":"1"}]}`,
		`{"boot":"BOOT","config":{"in":["eth1"]},"mode":"tproxy","listen":[":80"],"sysctls":[{"path":"net/../kernel/panic","old":"0","new":"1"}]}`,
		`{"boot":"BOOT","config":{"in":["eth1; flush ruleset"]},"mode":"tproxy","listen":[":80"]}`,
		`{"boot":"BOOT","config":{"in":["eth1"],"on_down":"closed"},"mode":"redirect","listen":["[::]:1"],"foreign":["x"],"new_tables":["iptables mangle"]}`,
		`{"boot":"other","mode":"?"}`,
		`{"boot":"BOOT","mode":"?"}`,
		`{"boot":"BOOT","mode":"tproxy","listen":["nowhere"]}`,
		`null`, `[]`, ``,
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	name, err := stateName()
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, name)
	boot := bootID()
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "BOOT", boot)), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := loadState(dir)
		if err != nil && (s != nil || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Fatalf("%q: %v, %q", text, s, err)
		}
		if s == nil {
			return
		}
		for _, ch := range s.Sysctls {
			if path := filepath.Join(procSys, ch.Path); !strings.HasPrefix(path, procSys+"/net/") {
				t.Errorf("%q: sets %s", text, path)
			}
		}
		for _, l := range s.Config.Listen {
			if l.Port() == 0 {
				t.Errorf("%q: listens on %v", text, l)
			}
		}
		if err := s.save(dir); err != nil {
			t.Fatalf("%q cannot be written again: %v", text, err)
		}
		again, err := loadState(dir)
		if err != nil || again == nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%q: read %+v, then %+v, %v", text, s, again, err)
		}
	})
}
