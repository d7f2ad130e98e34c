package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

// asProgram tells the test binary to be tpbench: it runs itself anew, as ends and as relays,
// and tests run it.
const asProgram = "TPBENCH_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(program(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(netlabtest.Main(m))
}

func TestWrongUsageExitsWith2(t *testing.T) {
	for args, want := range map[string]string{
		"":                                     "expected one of",
		"compare --scenarios foo":              "--scenarios foo: no such scenario; there are bulk, rr, light, cps, idle, slow, mixed, scale, many",
		"compare --only rr-7":                  "--only rr-7: no such workload; there are bulk-1-up, ",
		"compare --relays nobody":              "there are direct, tprelay, ",
		"compare --rounds=-1":                  "--rounds -1: must be between 1 and 100",
		"compare --seconds 0.01":               "--seconds 0.01: must be between 0.1 and 600",
		"compare --check --quick":              "--check says itself what is measured",
		"compare --again=-1s":                  "--again -1s: must not be negative",
		"compare --warmup=-1s":                 "--warmup -1s: must be between 0 and 10m",
		"compare --with ping":                  "--with",
		"compare --with iperf3 --scenarios rr": "--scenarios rr: --with iperf3 does bulk alone",
		"compare --relays direct --baseline x": "--baseline x: it is not among the relays that are measured",
		"report":                               "<dir>",
		"demo --seconds 2":                     "--seconds 2: must be between 3 and 600",
		"demo --access 5mbps":                  `rate "5mbps"`,
		"demo --bottleneck 1":                  "must be between 8kbit and 1000gbit",
		"demo --queue 0s":                      "--queue 0s",
		"demo --delay=-1s":                     "--delay -1s",
		"slow --relays nobody":                 "there are direct, tprelay, ",
		"slow --relays direct,direct":          "--relays: direct is named twice",
		"slow --relays command":                "say with --relay-command what to run",
		"slow --mode forward":                  "--mode",
		"slow --mode redirect --relays iocopy": "--relays: relay iocopy: works with TPROXY only",
		"slow --flows 0":                       "--flows 0: must be between 1 and 1000",
		"slow --crowd 1001":                    "--crowd 1001: must be between 0 and 1000",
		"slow --again=-1":                      "--again -1: must not be negative",
		"slow --check speed":                   `--check "speed": want all, or some of ratio,settle,`,
		"slow --attach 1,2":                    "--attach: want three process ids, of h1, h2 and h3",
		"slow --rounds 0":                      "--rounds 0: must be between 1 and 100",
		"slow --seconds 2":                     "--seconds 2: must be between 3 and 600",
		"slow --reader fast":                   "--reader",
		"slow --bottleneck 5mbps":              `rate "5mbps"`,
		"slow --json /nonexistent/x":           "--json /nonexistent/x: there is no directory /nonexistent",
		"probe --plot /tmp":                    "--plot /tmp: is a directory",
		"probe --plot -":                       "--plot -: say with --json FILE where the samples go instead",
		"probe --interval 1ms":                 "--interval 1ms: must be between 5ms and 1s",
		"probe --unsent 2GiB":                  "--unsent 2.0 GiB: must be at most 1GiB",
		"probe --high-watermark x":             `size "x"`,
	} {
		var stdout, stderr bytes.Buffer
		if status := program(strings.Fields(args), &stdout, &stderr); status != cli.Usage {
			t.Errorf("%q: status %d", args, status)
		}
		if text := stderr.String(); !strings.HasPrefix(text, "tpbench: ") || !strings.Contains(text, want) || strings.Count(text, "\n") != 1 {
			t.Errorf("%q: it said %q, wanted %q in one line", args, text, want)
		}
		if stdout.Len() > 0 {
			t.Errorf("%q: printed %q", args, stdout.String())
		}
	}
}

func TestHelpExitsWith0AndHidesWhatIsForItself(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := program([]string{"--help"}, &stdout, &stderr); status != cli.OK || stderr.Len() > 0 {
		t.Errorf("status %d, %s", status, stderr.String())
	}
	for _, command := range []string{"demo", "slow", "probe", "compare", "report"} {
		if !strings.Contains(stdout.String(), command) {
			t.Errorf("no %s in:\n%s", command, stdout.String())
		}
	}
	for _, hidden := range []string{"Be an end", "Be a relay"} {
		if strings.Contains(stdout.String(), hidden) {
			t.Errorf("a hidden command shows:\n%s", stdout.String())
		}
	}
}

func TestPlaceForResultsIsLookedAtBeforeTheyAreMeasured(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	status := program([]string{"compare", "--relays", "direct", "--only", "rr-1", "--rounds", "1", "--seconds", "0.1", "--out", file}, &stdout, &stderr)
	if want := "tpbench: --out: no place for results: mkdir " + file + ": not a directory\n"; status != cli.Failure || stderr.String() != want {
		t.Errorf("status %d, %q", status, &stderr)
	}
}
