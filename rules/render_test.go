package rules_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

func goldenConfigs() map[string]rules.Config {
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9091"), netip.MustParseAddrPort("[::1]:9091")}
	all := []netip.AddrPort{netip.MustParseAddrPort("[::]:9091")}
	full := rules.Config{
		Mode: tproxy.TPROXY, Listen: local, In: []string{"eth1", "eth1.100"}, OnDown: rules.Closed,
		Ports:          rules.Ports{{First: 80, Last: 80}, {First: 8000, Last: 8080}},
		Exclude:        []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")},
		ExcludeClients: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")},
		SSHPorts:       []uint16{22, 2222},
		Management:     rules.ManagementFromEnv("198.51.100.9 50123 198.51.100.1 22"),
		Mark:           0x10, Table: 100,
	}
	legacy := full
	legacy.Backend = rules.IPTables
	return map[string]rules.Config{
		"nft-tproxy":             {Listen: local[:1], In: []string{"eth1"}},
		"nft-tproxy-full":        full,
		"nft-redirect":           {Mode: tproxy.Redirect, Listen: all, In: []string{"eth1"}},
		"nft-redirect-loopback":  {Mode: tproxy.Redirect, Listen: local[:1], In: []string{"eth1"}, Transparent: true},
		"iptables-tproxy":        {Listen: local[:1], In: []string{"eth1"}, Backend: rules.IPTables},
		"iptables-tproxy-full":   legacy,
		"iptables-redirect":      {Mode: tproxy.Redirect, Listen: all, In: []string{"eth1"}, Backend: rules.IPTables},
		"iptables-redirect-both": {Mode: tproxy.Redirect, Listen: local[:1], In: []string{"eth1"}, Transparent: true, Backend: rules.IPTables},
	}
}

// UPDATE_GOLDEN=1 go test -run Golden ./rules writes the files anew.
func TestRenderMatchesGoldenFiles(t *testing.T) {
	for name, cfg := range goldenConfigs() {
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		path := filepath.Join("testdata", name+".golden")
		have := cfg.Render()
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if have != string(want) {
			t.Errorf("%s differs from %s:\n%s", name, path, have)
		}
	}
}

func TestEveryRuleIsExplained(t *testing.T) {
	for name, cfg := range goldenConfigs() {
		previous := ""
		for text := range strings.Lines(cfg.Render()) {
			text = strings.TrimSpace(text)
			rule := strings.HasPrefix(text, "-A ") || strings.HasSuffix(text, " return") || strings.HasSuffix(text, " accept") || strings.HasPrefix(text, "iifname")
			alike := strings.HasPrefix(previous, "#") || strings.HasPrefix(previous, "-A ") || strings.HasPrefix(previous, "ip") || strings.HasPrefix(previous, "iifname")
			if rule && !alike {
				t.Errorf("%s: no comment above %q", name, text)
			}
			previous = text
		}
	}
}

func TestFlagsLeaveOutDefaults(t *testing.T) {
	for _, c := range []struct {
		cfg  rules.Config
		want string
	}{
		{rules.Config{Listen: []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 9091)}, In: []string{"eth1"}, IPv6: true},
			"--mode tproxy --listen :9091 --in eth1 --ipv6"},
		{goldenConfigs()["iptables-tproxy-full"],
			"--mode tproxy --listen 127.0.0.1:9091 --listen [::1]:9091 --in eth1 --in eth1.100 --dport 80,8000-8080 --backend iptables " +
				"--exclude 10.0.0.0/8 --exclude 10.1.0.0/16 --exclude fd00::/8 --exclude-client 192.0.2.7/32 --ssh-port 22 --ssh-port 2222 --mark 0x10 --table 100"},
	} {
		if have := c.cfg.Flags(); have != c.want {
			t.Errorf("flags are\n%s, want\n%s", have, c.want)
		}
	}
}
