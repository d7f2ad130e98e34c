package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/tprelay/tprelay/bench/bottleneck"
	"github.com/tprelay/tprelay/internal/cli"
)

// TestDemoMeasuresTprelay asks for what is true however fast the machine is.
func TestDemoMeasuresTprelay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	needsRules(t)
	tprelay := aTPRelay(t)
	for name, ordinary := range map[string]bool{"root": false, "ordinary user": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := printed[bottleneck.Comparison](t, process(t, ordinary, "demo", "--seconds", "3", "--tprelay", tprelay, "--json", "-"))
			if len(c.Runs) != 3 {
				t.Fatalf("%d transfers", len(c.Runs))
			}
			for i, m := range c.Runs {
				last := m.Samples[len(m.Samples)-1]
				if last.ArrivedBytes <= 0 || last.ArrivedBytes > last.SentBytes || (last.Relay != nil) != (i > 0) {
					t.Errorf("%s: %+v", m.Relay, last)
				}
				if m.Client != m.ServerSaw {
					t.Errorf("%s: client %v, server saw %v", m.Relay, m.Client, m.ServerSaw)
				}
			}
			if pending := c.Runs[1].Figures[bottleneck.PendingMost]; pending > float64(c.Settings.Watermark) {
				t.Errorf("%.0f bytes were pending", pending)
			}
		})
	}
}

func TestDemoSaysWhatItShows(t *testing.T) {
	needsRules(t)
	cmd := process(t, false, "demo", "--seconds", "3", "--tprelay", aTPRelay(t))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	for _, want := range []string{"h1 --- 20 Mbit/s --- h2 --- 6 Mbit/s --- h3", "sender saw", "\ndirect ", "With flow control, the sender behind the relay ",
		"Without it, the sender saw ", "In every run the server saw the client's own address and port."} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
	}
	if n := strings.Count(stderr.String(), "\n"); n != 3 {
		t.Errorf("progress of %d lines: %s", n, stderr.String())
	}
}

func TestDemoWithoutTprelayFails(t *testing.T) {
	var stdout, stderr bytes.Buffer
	status := program([]string{"demo", "--tprelay", "/nonexistent"}, &stdout, &stderr)
	if want := "tpbench: demo: --tprelay /nonexistent: it is no program\n"; status != cli.Failure || stderr.String() != want {
		t.Errorf("status %d, %q", status, stderr.String())
	}
}

func TestInterruptLeavesNothingBehind(t *testing.T) {
	tprelay := aTPRelay(t)
	for name, ordinary := range map[string]bool{"root": false, "ordinary user": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := process(t, ordinary, "demo", "--seconds", "4", "--tprelay", tprelay)
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stderr)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(line, err)
				}
				if strings.HasPrefix(line, "round 1 of 1: tprelay,") {
					break
				}
			}
			awaitTransfer(t, mark(t))
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(lines)
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != cli.Failure || string(rest) != "tpbench: interrupted\n" {
				t.Errorf("%v, it said %q", err, rest)
			}
		})
	}
}
