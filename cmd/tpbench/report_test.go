package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// example is a report of fixed figures.
func example() *report {
	client := netip.MustParseAddrPort("10.77.1.1:41000")
	own := func(port uint16) transfer {
		c := netip.AddrPortFrom(client.Addr(), port)
		return transfer{Client: c, ServerSaw: c}
	}
	return &report{
		Settings: settings{
			Mode: "tproxy", Access: 20_000_000, Bottleneck: 6_000_000, Queue: 0.1, Delay: 0.01,
			Seconds: 10, Skipped: 2, Traffic: "iperf3", Backend: "nft",
		},
		Runs: []run{
			{Name: "direct, no relay", SenderRate: 5_710_000, ArrivedRate: 5_690_000, Saw: sawClient, transfer: own(41000)},
			{Name: "relay with flow control", Relay: true, FlowControl: true, SenderRate: 5_820_000, ArrivedRate: 5_680_000, Saw: sawClient, transfer: own(41002),
				Process: &relayFigures{RSSAtStart: 9 << 20, RSSPeak: 9<<20 + 600<<10, PendingPeak: 160 << 10, Accepted: 2}},
			{Name: "relay without flow control", Relay: true, SenderRate: 19_120_000, ArrivedRate: 5_700_000, Saw: sawClient, transfer: own(41004),
				Process: &relayFigures{RSSAtStart: 9 << 20, RSSPeak: 40 << 20, PendingPeak: 17_091_789, Accepted: 2}},
		},
	}
}

func TestTableIsAligned(t *testing.T) {
	r := example()
	r.Notes = []string{"built-in traffic: iperf3 is not installed"}
	r.Reading = r.read()
	golden(t, "table.golden", r.table())
}

func TestTableOfRedirectWithoutDelay(t *testing.T) {
	r := example()
	r.Settings.Mode, r.Settings.IPv6, r.Settings.Delay = "redirect", true, 0
	for i := range r.Runs {
		run := &r.Runs[i]
		run.Client = netip.AddrPortFrom(netip.MustParseAddr("fd77:1::1"), run.Client.Port())
		run.ServerSaw = run.Client
		if run.Relay {
			run.ServerSaw, run.Saw = netip.MustParseAddrPort("[fd77:2::2]:50000"), sawRelay
		}
	}
	r.Reading = r.read()
	golden(t, "table-redirect.golden", r.table())
}

// golden compares with a file, which UPDATE_GOLDEN=1 writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
}

func TestReadingFollowsTheFigures(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(controlled, without *run)
		want   string
	}{
		"flow control fails": {
			func(controlled, _ *run) { controlled.SenderRate = 8_900_000 },
			"believed in 8.9 Mbit/s, but 5.7 Mbit/s arrived, which is not as it should be; at most 160 KiB waited in the relay.",
		},
		"what waited still arrives": {
			func(controlled, _ *run) { controlled.SenderRate = 4_700_000 },
			"was held at 4.7 Mbit/s while 5.7 Mbit/s arrived: what it had sent before was still on its way; at most 160 KiB waited in the relay.",
		},
		"no bottleneck": {
			func(_, without *run) {
				without.SenderRate, without.ArrivedRate, without.Process.PendingPeak = 5_700_000, 5_600_000, 3000
			},
			"Without it, the sender believed in 5.7 Mbit/s and 5.6 Mbit/s arrived, with at most 3 KiB waiting in the relay: these figures do not show what flow control is for.",
		},
		"piles up all the same": {
			func(_, without *run) { without.SenderRate = without.ArrivedRate },
			"arrived, yet 16.3 MiB piled up",
		},
		"more arrived": {
			func(_, without *run) { without.SenderRate = 1_000_000 },
			"these figures do not show what flow control is for",
		},
		"memory limit": {
			func(_, without *run) { without.Process.Starved = 1 },
			"Only its memory limit ended that.",
		},
		"stranger": {
			func(_, without *run) { without.Saw = sawRelay },
			`In the run "relay without flow control" the client was 10.77.1.1:41004, but the server saw 10.77.1.1:41004, which is not as it should be.`,
		},
	} {
		r := example()
		tc.change(&r.Runs[1], &r.Runs[2])
		if text := strings.Join(r.read(), "\n"); !strings.Contains(text, tc.want) {
			t.Errorf("%s:\n%s\nwanted: %s", name, text, tc.want)
		}
	}
}

func TestMemoryIsReadFromStatus(t *testing.T) {
	m, err := parseMemory("Name:\tx\nVmHWM:\t   10240 kB\nVmRSS:\t    9216 kB\nRssAnon:\t    1024 kB\n")
	if want := (memory{rss: 9 << 20, peak: 10 << 20, anon: 1 << 20}); err != nil || m != want {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"Name:\tzombie\n", "VmHWM:\tx kB\n"} {
		if _, err := parseMemory(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if m, err := readMemory(os.Getpid()); err != nil || m.rss == 0 || m.peak < m.rss || m.anon == 0 {
		t.Errorf("our own: %+v, %v", m, err)
	}
}
