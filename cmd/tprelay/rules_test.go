package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
	"github.com/tprelay/tprelay/rules"
)

func gateway(t *testing.T) *netlab.Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	return netlabtest.New(t, netlab.Config{}).H2
}

func flagsFor(t *testing.T) rulesFlags {
	t.Helper()
	return rulesFlags{Mode: "tproxy", Backend: "nft", Listen: []string{"127.0.0.1:9091"}, In: []string{"left"},
		State: filepath.Join(t.TempDir(), "state")}
}

// present says whether the rules stand on h.
func present(t *testing.T, h *netlab.Host) bool {
	t.Helper()
	out, err := h.Command(context.Background(), "nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(out), "tprelay")
}

// told is a writer that says when the operator is asked to confirm.
type told struct {
	bytes.Buffer
	asked func()
}

func (w *told) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "press Enter") {
		w.asked()
	}
	return w.Buffer.Write(p)
}

func TestApplyIsTakenBackUnlessConfirmed(t *testing.T) {
	h := gateway(t)
	for _, c := range []struct {
		name string
		wait time.Duration
		// act is what the operator does when asked; he types into in.
		act  func(in *io.PipeWriter)
		want string // part of the error; "": the rules are kept
	}{
		{"enter", time.Hour, func(in *io.PipeWriter) { io.WriteString(in, "\n") }, ""},
		{"hangup", time.Hour, func(*io.PipeWriter) { syscall.Kill(syscall.Getpid(), syscall.SIGHUP) }, "signal: hangup"},
		{"end of input", time.Hour, func(in *io.PipeWriter) { in.Close() }, "end of input"},
		{"no answer", time.Millisecond, func(*io.PipeWriter) {}, "Enter was not pressed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			flags := flagsFor(t)
			cfg, err := flags.config()
			if err != nil {
				t.Fatal(err)
			}
			in, typed := io.Pipe()
			defer in.Close()
			out := &told{asked: func() { go c.act(typed) }}
			err = h.Do(func() error { return applyWithConfirm(cfg, c.wait, in, out) })
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if have := present(t, h); have != (c.want == "") {
				t.Errorf("rules stand: %v", have)
			}
			if err := h.Do((&rulesRemove{flags}).Run); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestApplyNotConfirmedPutsFormerRulesBack(t *testing.T) {
	h := gateway(t)
	flags := flagsFor(t)
	toNobody := &kong.Context{Kong: &kong.Kong{Stderr: io.Discard}}
	if err := h.Do(func() error { return (&rulesApply{rulesFlags: flags}).Run(toNobody) }); err != nil {
		t.Fatal(err)
	}
	cfg, err := flags.config()
	if err != nil {
		t.Fatal(err)
	}
	next := cfg
	next.Backend, next.Table = rules.IPTables, 99
	in, typed := io.Pipe()
	typed.Close()
	if err := h.Do(func() error { return applyWithConfirm(next, time.Hour, in, io.Discard) }); err == nil {
		t.Error("no error, though nobody confirmed")
	}
	if err := h.Do((&rulesVerify{rulesFlags: rulesFlags{Mode: "tproxy", State: flags.State}}).Run); err != nil {
		t.Error(err)
	}
	if err := h.Do((&rulesRemove{flags}).Run); err != nil {
		t.Error(err)
	}
	if present(t, h) {
		t.Error("rules stand after remove")
	}
}

func TestHelpOfVerifyAndRemoveShowsOnlyTheirFlags(t *testing.T) {
	apply := []string{"--in=", "--dport=", "--backend=", "--exclude=", "--set-sysctls", "--on-down="}
	for _, c := range []struct {
		command     string
		shows, nots []string
	}{
		{"apply", append(apply, "--confirm=", "--state="), nil},
		{"verify", []string{"--listener", "--state="}, append(apply, "--listen=", "--mark=")},
		{"remove", []string{"--state=", "--mark=", "--table="}, append(apply, "--listen=", "--listener")},
	} {
		var stdout, stderr bytes.Buffer
		if status := program([]string{"rules", c.command, "--help"}, &stdout, &stderr); status != 0 {
			t.Errorf("%s: status %d, %s", c.command, status, &stderr)
		}
		for _, flag := range c.shows {
			if !strings.Contains(stdout.String(), flag) {
				t.Errorf("%s: no %s in\n%s", c.command, flag, &stdout)
			}
		}
		for _, flag := range c.nots {
			if strings.Contains(stdout.String(), flag) {
				t.Errorf("%s: %s in\n%s", c.command, flag, &stdout)
			}
		}
	}
}

func TestVerifyAndRemoveTakeTheFlagsOfApply(t *testing.T) {
	parser, err := application(nil).Parser(new(commands), io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"apply", "verify", "remove"} {
		args := "rules " + command + " --mode tproxy --listen :9091 --in eth1 --dport 80 --exclude 10.0.0.0/8 --set-sysctls"
		if _, err := parser.Parse(strings.Fields(args)); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestRulesUsageErrorsEndWithStatus2(t *testing.T) {
	for _, c := range []struct {
		args, want string
	}{
		{"rules apply --in eth1", "no listener"},
		{"rules print --listen :9091", "no interface"},
		{"rules apply --listen 127.0.0.1:9091 --in eth1 --ipv6", "no listener serves IPv6"},
		{"rules apply --listen :9091 --in eth1 --dport http", "ports"},
		{"rules apply --listen :9091 --in eth1 --backend iptables --on-down open", "--backend nft"},
		{"rules apply --listen :9091 --in eth1 --mode forward", "mode"},
		{"rules print --listen :9091 --in eth1 --exclude 10", "exclude"},
	} {
		var stdout, stderr bytes.Buffer
		status := program(strings.Fields(c.args), &stdout, &stderr)
		said := stderr.String()
		if status != 2 || !strings.Contains(said, c.want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: status %d, %q; want 2, %q in one line", c.args, status, said, c.want)
		}
	}
}
