package rules_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

func TestValidateNamesWhatCannotWork(t *testing.T) {
	at := func(texts ...string) (out []netip.AddrPort) {
		for _, text := range texts {
			listen, err := rules.ParseListen(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, listen)
		}
		return out
	}
	eth := []string{"eth1"}
	for _, c := range []struct {
		cfg  rules.Config
		want string // part of the error; "" for none
	}{
		{rules.Config{Listen: at(":9091"), In: eth}, ""},
		{rules.Config{Listen: at("127.0.0.1:1", "[::1]:2"), In: eth, IPv6: true}, ""},
		{rules.Config{Listen: at("127.0.0.1:1"), In: eth, IPv6: true}, "no listener serves IPv6"},
		{rules.Config{Listen: at("127.0.0.1:1", "10.0.0.1:1"), In: eth}, "two listeners"},
		{rules.Config{Listen: at("[::]:1", "10.0.0.1:1"), In: eth}, "two listeners"},
		{rules.Config{In: eth}, "no listener"},
		{rules.Config{Listen: at(":1")}, "no interface"},
		{rules.Config{Listen: at(":1"), In: []string{`x" accept`}}, "interface"},
		{rules.Config{Listen: at(":1"), In: []string{"-j"}}, "interface"},
		{rules.Config{Listen: at(":1"), In: []string{"eth+"}}, "interface"},
		{rules.Config{Listen: at(":1"), In: []string{"sixteen-letters-"}}, "interface"},
		{rules.Config{Listen: at(":1"), In: eth, Mode: tproxy.Forward}, "forward mode"},
		{rules.Config{Listen: at(":1"), In: eth, Backend: "ipfw"}, "back end"},
		{rules.Config{Listen: at(":1"), In: eth, OnDown: "ajar"}, "on down"},
		{rules.Config{Listen: at(":1"), In: eth, OnDown: rules.Open, Backend: rules.IPTables}, "needs --backend nft"},
		{rules.Config{Listen: at(":1"), In: eth, OnDown: rules.Open, Mode: tproxy.Redirect}, "needs --mode tproxy"},
		{rules.Config{Listen: at(":1"), In: eth, Table: 254}, "table 254"},
		{rules.Config{Listen: at("[::1]:1"), In: eth, Mode: tproxy.Redirect}, "loopback"},
		{rules.Config{Listen: at(":1"), In: eth, Ports: rules.Ports{{First: 9, Last: 8}}}, "range"},
	} {
		err := c.cfg.Validate()
		switch {
		case err == nil && c.want != "":
			t.Errorf("%s: no error, want %q", c.cfg.Flags(), c.want)
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v, want %q", c.cfg.Flags(), err, c.want)
		}
	}
}

func TestManagementFromEnvTakesOnlyWhatSSHWrites(t *testing.T) {
	if m := rules.ManagementFromEnv("fe80::1%eth0 50000 fe80::2%eth0 22"); len(m) != 1 || m[0].Client.String() != "[fe80::1]:50000" {
		t.Errorf("IPv6: %v", m)
	}
	for _, text := range []string{"", "a b c d", "10.0.0.1 1 ::1 22", "10.0.0.1 0 10.0.0.2 22", "10.0.0.1 1 10.0.0.2 22 x"} {
		if m := rules.ManagementFromEnv(text); m != nil {
			t.Errorf("%q: %v", text, m)
		}
	}
}

func TestMissingKernelModuleIsNamedInOneLine(t *testing.T) {
	h := newLab(t).H2
	dir := t.TempDir()
	// A kernel that has all but the tproxy statement.
	fake := "#!/bin/sh\nif grep -q tproxy\\ ; then echo '/dev/stdin:9:3-9: Error: Could not process rule: No such file or directory' >&2; echo '  x tproxy to :1' >&2; echo '  ^^^^' >&2; exit 1; fi\n"
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	cfg := rules.Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("[::]:9091")}, In: []string{"left"}, StateDir: filepath.Join(dir, "state")}
	err := h.Do(func() error { return rules.Apply(context.Background(), cfg) })
	const want = "nft: tproxy: the kernel lacks nft_tproxy (CONFIG_NFT_TPROXY); use --backend iptables or load the module"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := os.Stat(cfg.StateDir); err == nil {
		t.Error("a state directory, though nothing was changed")
	}
}
