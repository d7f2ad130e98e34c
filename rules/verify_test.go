package rules_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

func TestVerifyReportsEachDeletedRule(t *testing.T) {
	each(t, func(t *testing.T, b tool, mode tproxy.Mode, f families) {
		h := newLab(t).H2
		settle(t, b, h)
		cfg := f.config(t, mode, b)
		cfg.Exclude = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
		apply(t, h, cfg)
		deletions := deletions(t, h, b)
		if len(deletions) < 4 {
			t.Fatalf("only %d rules to delete", len(deletions))
		}
		for i, d := range deletions {
			if b.backend == rules.NFT {
				d = listDeletions(t, h)[i] // handles are new after each apply
			}
			shell(t, h, d)
			problems := verify(t, h, cfg)
			if len(problems) != 1 {
				t.Errorf("after %s: %d problems: %v", d, len(problems), problems)
			}
			for _, p := range problems {
				if !strings.HasPrefix(p.Fix, "tprelay rules apply --") {
					t.Errorf("after %s: %v: no command that fixes it", d, p)
				}
			}
			apply(t, h, cfg)
		}
	})
}

// deletions gives one command for each of our rules that deletes it.
func deletions(t *testing.T, h *netlab.Host, b tool) []string {
	t.Helper()
	if b.backend == rules.NFT {
		return listDeletions(t, h)
	}
	var out []string
	for _, program := range []string{"iptables", "ip6tables"} {
		table := ""
		for l := range strings.Lines(shell(t, h, program+"-save")) {
			l = strings.TrimSpace(l)
			if strings.HasPrefix(l, "*") {
				table = l[1:]
			}
			if rule, ok := strings.CutPrefix(l, "-A "); ok {
				out = append(out, fmt.Sprintf("%s -w 5 -t %s -D %s", program, table, rule))
			}
		}
	}
	return out
}

func listDeletions(t *testing.T, h *netlab.Host) []string {
	t.Helper()
	var list struct {
		Nftables []struct {
			Rule *struct {
				Chain  string
				Handle int
			}
		}
	}
	if err := json.Unmarshal([]byte(shell(t, h, "nft -j list table inet tprelay")), &list); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, item := range list.Nftables {
		if item.Rule != nil {
			out = append(out, fmt.Sprintf("nft delete rule inet tprelay %s handle %d", item.Rule.Chain, item.Rule.Handle))
		}
	}
	return out
}

func TestVerifyReportsMissingRoutingWithTheCommandThatFixesIt(t *testing.T) {
	h := newLab(t).H2
	b := tools()[0]
	b.use(t)
	cfg := allFamilies(tproxy.TPROXY)[2].config(t, tproxy.TPROXY, b)
	apply(t, h, cfg)
	for _, d := range []string{
		"ip rule del priority 100", "ip -6 rule del priority 100",
		"ip route flush table 7470", "ip -6 route flush table 7470",
	} {
		shell(t, h, d)
		problems := verify(t, h, cfg)
		if len(problems) != 1 {
			t.Fatalf("after %s: %v", d, problems)
		}
		shell(t, h, problems[0].Fix)
		if problems := verify(t, h, cfg); len(problems) > 0 {
			t.Errorf("fixed: %v", problems)
		}
	}
	shell(t, h, "nft delete table inet tprelay")
	if problems := verify(t, h, cfg); len(problems) != 1 {
		t.Errorf("without the table: %v", problems)
	}
}

func TestVerifyReportsForeignAndReorderedRules(t *testing.T) {
	h := newLab(t).H2
	b := tools()[0]
	b.use(t)
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, b)
	apply(t, h, cfg)
	shell(t, h, "nft insert rule inet tprelay prerouting counter")
	if problems := verify(t, h, cfg); len(problems) != 1 || !strings.Contains(problems[0].What, "unexpected") {
		t.Errorf("foreign rule: %v", problems)
	}
	apply(t, h, cfg)
	shell(t, h, "nft add rule inet tprelay prerouting fib daddr type local return")
	shell(t, h, "nft delete rule inet tprelay prerouting handle $(nft -a list table inet tprelay | sed -n '/fib daddr/{s/.*handle //p;q}')")
	if problems := verify(t, h, cfg); len(problems) != 1 || !strings.Contains(problems[0].What, "order") {
		t.Errorf("reordered rules: %v", problems)
	}
}
