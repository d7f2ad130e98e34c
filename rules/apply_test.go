package rules_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// settle sets h2 so that nothing stands in the way of any rules, and makes the
// tables of iptables-legacy, which the kernel keeps once they exist.
func settle(t *testing.T, b tool, h *netlab.Host) {
	t.Helper()
	if err := h.SetSysctl("net.ipv4.conf.left.route_localnet", "1"); err != nil {
		t.Fatal(err)
	}
	if b.legacy {
		shell(t, h, "for t in mangle nat; do iptables -w 5 -t $t -S; ip6tables -w 5 -t $t -S; done >/dev/null")
	}
}

func TestApplyTwiceIsOnceAndRemoveLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		h := newLab(t).H2
		settle(t, b, h)
		cfg := f.config(t, mode, b)
		before := snapshot(t, h)
		if problems := verify(t, h, cfg); len(problems) == 0 {
			t.Error("verify finds nothing missing before apply")
		}

		apply(t, h, cfg)
		once := snapshot(t, h)
		if problems := verify(t, h, cfg); len(problems) > 0 {
			t.Errorf("after apply: %v", problems)
		}
		apply(t, h, cfg)
		same(t, "after the second apply", once, snapshot(t, h))
		if problems := verify(t, h, cfg); len(problems) > 0 {
			t.Errorf("after the second apply: %v", problems)
		}

		remove(t, h, rules.Config{StateDir: cfg.StateDir})
		same(t, "after remove", before, snapshot(t, h))
		if _, err := os.Stat(cfg.StateDir); err == nil {
			t.Error("the state directory is left behind")
		}
		remove(t, h, cfg)
		same(t, "after the second remove", before, snapshot(t, h))
	})
}

func TestScriptDoesWhatApplyDoes(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		h := newLab(t).H2
		settle(t, b, h)
		cfg := f.config(t, mode, b)
		script := filepath.Join(t.TempDir(), "rules.sh")
		if err := os.WriteFile(script, []byte(cfg.Render()), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			shell(t, h, "sh "+script)
			if problems := verify(t, h, cfg); len(problems) > 0 {
				t.Errorf("after the script: %v", problems)
			}
		}
		byScript := sorted(snapshot(t, h)) // nft lists chains in the order of their making
		remove(t, h, cfg)                  // there is no record: by our names
		apply(t, h, cfg)
		same(t, "applied instead of run", byScript, sorted(snapshot(t, h)))
	})
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestApplyReplacesWhatWasApplied(t *testing.T) {
	h := newLab(t).H2
	before := snapshot(t, h)
	nft := allFamilies(tproxy.TPROXY)[2].config(t, tproxy.TPROXY, tools()[0])
	nft.Mark, nft.Table = 0x10, 123
	iptables := allFamilies(tproxy.Redirect)[0].config(t, tproxy.Redirect, tools()[1])
	iptables.StateDir = nft.StateDir
	tproxied := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[1])
	tproxied.StateDir = nft.StateDir
	for _, cfg := range []rules.Config{nft, iptables, tproxied, nft, tproxied, iptables} {
		cfg.SetSysctls = true
		apply(t, h, cfg)
		if problems := verify(t, h, cfg); len(problems) > 0 {
			t.Errorf("%s: %v", cfg.Flags(), problems)
		}
		text := snapshot(t, h)
		for what, wanted := range map[string]bool{
			"table inet tprelay": cfg.Backend == rules.NFT,
			"-j TPROXY":          cfg.Backend == rules.IPTables && cfg.Mode == tproxy.TPROXY,
			"-j DNAT":            cfg.Backend == rules.IPTables && cfg.Mode == tproxy.Redirect,
			"lookup 123":         cfg.Table == 123,
			"lookup 7470":        cfg.Table == 0 && cfg.Mode == tproxy.TPROXY,
		} {
			if strings.Contains(text, what) != wanted {
				t.Errorf("%s: %q present: %v", cfg.Flags(), what, !wanted)
			}
		}
	}
	remove(t, h, nft)
	same(t, "after remove", before, snapshot(t, h))
}

func TestRemoveLeavesWhatWasThereBefore(t *testing.T) {
	h := newLab(t).H2
	shell(t, h, "ip rule add priority 100 fwmark 0x7470 lookup 7470; ip route add local default dev lo table 7470")
	shell(t, h, "iptables-nft -t mangle -A PREROUTING -i right -j RETURN; nft add table inet other")
	before := snapshot(t, h)
	for _, b := range tools()[:2] {
		cfg := allFamilies(tproxy.TPROXY)[2].config(t, tproxy.TPROXY, b)
		apply(t, h, cfg)
		apply(t, h, cfg)
		remove(t, h, cfg)
		same(t, b.name, before, snapshot(t, h))
	}
}

func TestFailedApplyLeavesNothing(t *testing.T) {
	h := newLab(t).H2
	b := tools()[1]
	b.use(t)
	bin := strings.Split(os.Getenv("PATH"), ":")[0]
	if err := h.SetSysctl("net.ipv4.conf.left.rp_filter", "1"); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, h)
	// IPv4 succeeds, IPv6 fails at the very end.
	if err := os.Remove(filepath.Join(bin, "ip6tables-restore")); err != nil {
		t.Fatal(err)
	}
	failing := "#!/bin/sh\ncase \"$*\" in *-X*) exit 0;; esac\necho 'ip6tables-restore: line 7 failed' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "ip6tables-restore"), []byte(failing), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := allFamilies(tproxy.TPROXY)[2].config(t, tproxy.TPROXY, b)
	cfg.SetSysctls = true
	err := h.Do(func() error { return rules.Apply(context.Background(), cfg) })
	if err == nil || err.Error() != "ip6tables-restore: line 7 failed" {
		t.Errorf("apply: %v", err)
	}
	same(t, "after the failed apply", before, snapshot(t, h))
	if _, ok, _ := rules.Applied(cfg.StateDir); ok {
		t.Error("the record says that it was applied")
	}
}

func TestManagementConnectionIsKeptByVerify(t *testing.T) {
	h := newLab(t).H2
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[0])
	cfg.Management = rules.ManagementFromEnv("10.77.1.1 50000 10.77.1.2 22")
	apply(t, h, cfg)
	cfg.Management = rules.ManagementFromEnv("10.77.1.1 60000 10.77.1.2 22") // another login
	if problems := verify(t, h, cfg); len(problems) > 0 {
		t.Error(problems)
	}
	if list := shell(t, h, "nft list ruleset"); !regexp.MustCompile(`ip saddr 10.77.1.1 ip daddr 10.77.1.2 tcp sport 50000 tcp dport 22 return`).MatchString(list) {
		t.Errorf("no rule for the connection:\n%s", list)
	}
}

func TestJumpOfAnotherVersionIsReplaced(t *testing.T) {
	for _, b := range tools()[1:] {
		t.Run(b.name, func(t *testing.T) {
			b.use(t)
			h := newLab(t).H2
			cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, b)
			apply(t, h, cfg)
			shell(t, h, "iptables -w 5 -t mangle -D PREROUTING -j TPRELAY; iptables -w 5 -t mangle -A PREROUTING -p tcp -j TPRELAY")
			if problems := verify(t, h, cfg); len(problems) != 2 {
				t.Errorf("narrower jump: %v", problems)
			}
			apply(t, h, cfg)
			if problems := verify(t, h, cfg); len(problems) > 0 {
				t.Errorf("applied again: %v", problems)
			}
			shell(t, h, "iptables -w 5 -t mangle -A PREROUTING -p tcp -j TPRELAY")
			remove(t, h, cfg)
			if list := shell(t, h, "iptables-save"); strings.Contains(list, "TPRELAY") {
				t.Errorf("after remove:\n%s", list)
			}
		})
	}
}

// TestApplyAndRemoveAtOnce: each waits for the other, whoever makes and removes the record's
// directory.
func TestApplyAndRemoveAtOnce(t *testing.T) {
	h := newLab(t).H2
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[0])
	before := snapshot(t, h)
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			runtime.LockOSThread() // it ends with the goroutine
			if err := h.Enter(); err != nil {
				t.Error(err)
				return
			}
			for range 8 {
				act := rules.Apply
				if n%2 == 0 {
					act = rules.Remove
				}
				if err := act(t.Context(), cfg); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	apply(t, h, cfg)
	if problems := verify(t, h, cfg); len(problems) > 0 {
		t.Error(problems)
	}
	remove(t, h, cfg)
	same(t, "after remove", before, snapshot(t, h))
}
