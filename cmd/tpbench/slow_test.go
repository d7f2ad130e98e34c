package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/bench/bottleneck"
)

// aTPRelay builds tprelay where everybody may run it.
func aTPRelay(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpbench-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "tprelay")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/tprelay/tprelay/cmd/tprelay").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestSlowAndProbeMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	needsRules(t)
	tprelay := aTPRelay(t)
	for name, ordinary := range map[string]bool{"root": false, "ordinary user": true} {
		t.Run("slow, "+name, func(t *testing.T) {
			t.Parallel()
			cmd := process(t, ordinary, "slow", "--seconds", "3", "--rounds", "1", "--relays", "direct,tprelay,iocopy", "--tprelay", tprelay, "--json", "-")
			c := printed[bottleneck.Comparison](t, cmd)
			if len(c.Runs) != 3 {
				t.Fatalf("%d runs", len(c.Runs))
			}
			for _, m := range c.Runs {
				want := []string{bottleneck.SenderRate, bottleneck.ArrivedRate, bottleneck.Ratio, bottleneck.DelayMedian, bottleneck.DelayP99, bottleneck.InFlight}
				if m.Relay != "direct" {
					want = append(want, bottleneck.Throughput, bottleneck.AddedMedian, bottleneck.AddedP99, bottleneck.ExcessInFlight, bottleneck.Growth)
				}
				if m.Relay == "tprelay" {
					want = append(want, bottleneck.PendingMost)
				}
				for _, figure := range want {
					if _, ok := m.Figures[figure]; !ok {
						t.Errorf("%s: no %s: %v", m.Relay, figure, m.Figures)
					}
				}
				last := m.Samples[len(m.Samples)-1]
				if (last.Incoming == nil || last.Outgoing == nil) != (m.Relay == "direct") || (last.Relay != nil) != (m.Relay == "tprelay") {
					t.Errorf("%s: %+v", m.Relay, last)
				}
				if m.Client != m.ServerSaw {
					t.Errorf("%s: client %v, server saw %v", m.Relay, m.Client, m.ServerSaw)
				}
			}
		})
		t.Run("probe, "+name, func(t *testing.T) {
			t.Parallel()
			cmd := process(t, ordinary, "probe", "--seconds", "3", "--tprelay", tprelay, "--high-watermark", "64KiB")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			n := 0
			for dec := json.NewDecoder(&stdout); dec.More(); n++ {
				dec.DisallowUnknownFields()
				var s bottleneck.Sample
				if err := dec.Decode(&s); err != nil {
					t.Fatal(err)
				}
				if s.Sender == nil || s.Incoming == nil || s.Outgoing == nil || s.Receiver == nil || s.Relay == nil || s.Memory <= 0 {
					t.Fatalf("sample %d: %+v", n, s)
				}
				if s.Relay.Pending > 64<<10 {
					t.Errorf("%d bytes were pending", s.Relay.Pending)
				}
			}
			if n == 0 {
				t.Error("no samples")
			}
			if text := stderr.String(); !strings.Contains(text, "The sender saw ") || !strings.Contains(text, "pending in the relay") {
				t.Errorf("it said %q", text)
			}
		})
	}
}

func TestSlowWritesFiles(t *testing.T) {
	dir := t.TempDir()
	page, figures := filepath.Join(dir, "slow.html"), filepath.Join(dir, "slow.json")
	cmd := process(t, false, "slow", "--seconds", "3", "--rounds", "1", "--relays", "direct,tprelay", "--tprelay", "/nonexistent", "--reader", "stopped", "--plot", page, "--json", figures)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	const note = "tprelay is left out: --tprelay /nonexistent: it is no program"
	if !strings.Contains(stdout.String(), "\ndirect ") || !strings.Contains(stdout.String(), note) {
		t.Errorf("it printed\n%s", stdout.String())
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("<svg")) {
		t.Errorf("page: %v", err)
	}
	if text, err := os.ReadFile(figures); err != nil || !json.Valid(text) {
		t.Errorf("JSON: %v", err)
	}
}
