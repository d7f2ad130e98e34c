package rules_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/tproxy"
)

func TestSysctlsAreReportedSetWhenAskedAndRestored(t *testing.T) {
	for _, setting := range []struct{ name, value string }{
		{"net.ipv4.conf.all.src_valid_mark", "1"},
		{"net.ipv4.conf.right.src_valid_mark", "1"},
		{"net.ipv4.conf.left.rp_filter", "1"},
		{"net.ipv4.conf.all.rp_filter", "1"},
		{"net.ipv4.ip_forward", "0"},
		{"net.ipv6.conf.all.forwarding", "0"},
		{"net.ipv4.tcp_syncookies", "2"},
	} {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			h := newLab(t).H2
			if err := h.SetSysctl(setting.name, setting.value); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, h)
			cfg := allFamilies(tproxy.TPROXY)[2].config(t, tproxy.TPROXY, tools()[0])
			apply(t, h, cfg)
			problems := verify(t, h, cfg)
			if len(problems) != 1 || !strings.HasPrefix(problems[0].Fix, "sysctl -w net.") {
				t.Fatalf("not set: %v", problems)
			}
			remove(t, h, cfg)
			same(t, "after remove", before, snapshot(t, h))

			shell(t, h, problems[0].Fix)
			apply(t, h, cfg)
			if problems := verify(t, h, cfg); len(problems) > 0 {
				t.Errorf("fixed: %v", problems)
			}
			remove(t, h, cfg)
			if err := h.SetSysctl(setting.name, setting.value); err != nil {
				t.Fatal(err)
			}

			before = snapshot(t, h)
			cfg.SetSysctls = true
			apply(t, h, cfg)
			if problems := verify(t, h, cfg); len(problems) > 0 {
				t.Errorf("set: %v", problems)
			}
			cfg.SetSysctls = false // what the first apply set is still restored
			apply(t, h, cfg)
			remove(t, h, cfg)
			same(t, "after remove", before, snapshot(t, h))
		})
	}
}

func TestBridgeSettingCountsOnlyForBridges(t *testing.T) {
	h := newLab(t).H2
	if _, err := h.Sysctl("net.bridge.bridge-nf-call-iptables"); err != nil {
		t.Skip("no bridge module")
	}
	if err := h.SetSysctl("net.bridge.bridge-nf-call-iptables", "1"); err != nil {
		t.Fatal(err)
	}
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[0])
	apply(t, h, cfg)
	if problems := verify(t, h, cfg); len(problems) > 0 {
		t.Errorf("without a bridge: %v", problems)
	}
	shell(t, h, "ip link add br0 type bridge && ip link set left master br0")
	if problems := verify(t, h, cfg); len(problems) != 1 || problems[0].Fix != "sysctl -w net.bridge.bridge-nf-call-iptables=0" {
		t.Errorf("with a bridge: %v", problems)
	}
}

func TestASettingChangedSinceIsNotRestored(t *testing.T) {
	h := newLab(t).H2
	if err := h.SetSysctl("net.ipv4.conf.left.rp_filter", "1"); err != nil {
		t.Fatal(err)
	}
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[0])
	cfg.SetSysctls = true
	apply(t, h, cfg)
	if err := h.SetSysctl("net.ipv4.conf.left.rp_filter", "0"); err != nil {
		t.Fatal(err)
	}
	remove(t, h, cfg)
	if value, err := h.Sysctl("net.ipv4.conf.left.rp_filter"); value != "0" {
		t.Errorf("rp_filter is %s, %v; want 0, as it was set by hand", value, err)
	}
}

// src_valid_mark is the setting that stops everything without a trace: the check
// is worth having only as long as that is so.
func TestSrcValidMarkDropsWhatIsDiverted(t *testing.T) {
	lab := newLab(t)
	server(t, lab, serverPort)
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[0])
	relay(t, lab, cfg, true)
	if err := lab.H2.SetSysctl("net.ipv4.conf.all.src_valid_mark", "1"); err != nil {
		t.Fatal(err)
	}
	apply(t, lab.H2, cfg)
	to := netip.AddrPortFrom(lab.H3.Addr4, serverPort)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := lab.H1.Dial(ctx, "tcp", to.String()); err == nil {
		c.Close()
		t.Error("connected, though src_valid_mark is 1")
	}
	cfg.SetSysctls = true
	apply(t, lab.H2, cfg)
	if answer := ask(t, lab, to); !strings.HasPrefix(answer, "relayed") {
		t.Errorf("with the setting fixed: %q", answer)
	}
}

func TestVerifyLooksForTheListenerWhenAsked(t *testing.T) {
	for _, f := range allFamilies(tproxy.TPROXY) {
		lab := newLab(t)
		cfg := f.config(t, tproxy.TPROXY, tools()[0])
		apply(t, lab.H2, cfg)
		cfg.CheckListener = true
		if problems := verify(t, lab.H2, cfg); len(problems) != len(f.destinations(lab)) {
			t.Errorf("%s: without a listener: %v", f.name, problems)
		}
		relay(t, lab, cfg, false)
		if problems := verify(t, lab.H2, cfg); len(problems) > 0 {
			t.Errorf("%s: with a listener: %v", f.name, problems)
		}
	}
}

func TestVerifyCountsOnlyListenersInItsNamespace(t *testing.T) {
	lab := newLab(t)
	server(t, lab, serverPort)
	cfg := allFamilies(tproxy.TPROXY)[0].config(t, tproxy.TPROXY, tools()[0])
	port := cfg.Listen[0].Port()
	l, err := lab.H1.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A connected socket with the listener's address and port is no listener.
	c, err := lab.H2.DialFrom(t.Context(), "tcp", fmt.Sprintf("0.0.0.0:%d", port), netip.AddrPortFrom(lab.H3.Addr4, serverPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg.Listen = []netip.AddrPort{unmapped(c.LocalAddr())}
	apply(t, lab.H2, cfg)
	cfg.CheckListener = true
	if problems := verify(t, lab.H2, cfg); len(problems) != 1 {
		t.Errorf("with a listener on another host, and a connection on the port: %v", problems)
	}
}
