package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// refusal is why a command line is refused. Nothing is run: what it asks for would be done
// to this machine.
func refusal(t *testing.T, args ...string) string {
	t.Helper()
	c := new(commands)
	parser, err := application(nil).Parser(c, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = parser.Parse(args); err == nil && args[0] == "run" {
		err = c.Run.check()
	}
	if err == nil {
		return "nothing"
	}
	oneLine(t, strings.Join(args, " "), err)
	return err.Error()
}

// TestEmptyValuesOfFlagsAreRefused: every flag of every command, also where it is given
// again with a value. A script whose variable is unset says --user "".
func TestEmptyValuesOfFlagsAreRefused(t *testing.T) {
	parser, err := application(nil).Parser(new(commands), new(bytes.Buffer), new(bytes.Buffer), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	flags := 0
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, child := range n.Children {
			walk(child)
		}
		if n.Type != kong.CommandNode || len(n.Children) > 0 {
			return
		}
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				if f.IsBool() {
					continue
				}
				flags++
				for _, empty := range []string{"", "  "} {
					args := append(strings.Fields(strings.TrimPrefix(n.FullPath(), "tprelay ")), "--"+f.Name+"="+empty)
					if got, want := refusal(t, args...), "--"+f.Name+": the value is empty; give one, or omit it"; got != want {
						t.Errorf("%q: refused for %q, want %q", args, got, want)
					}
				}
			}
		}
	}
	walk(parser.Model.Node)
	if flags < 50 {
		t.Errorf("%d flags were tried", flags)
	}
	for _, args := range [][]string{
		append([]string{"run"}, forwarding("--deny", "10.0.0.0/8", "--deny", "")...),
		append([]string{"run"}, forwarding("--listen", "")...),
		{"rules", "print", "--listen", ":9091", "--in", "eth1", "--exclude", "10.0.0.0/8", "--exclude", ""},
		{"rules", "print", "--listen", ":9091", "--in", "eth1", "--dport", "80", "--dport", ""},
	} {
		if got := refusal(t, args...); !strings.Contains(got, "the value is empty") {
			t.Errorf("%q: refused for %q", args, got)
		}
	}
}

// TestZerosThatMeanNothingAreRefused: those that were taken as if the flag were absent.
func TestZerosThatMeanNothingAreRefused(t *testing.T) {
	rules := func(more ...string) []string {
		return append([]string{"rules", "apply", "--listen", ":9091", "--in", "eth1"}, more...)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{append([]string{"run"}, forwarding("--mark", "0")...), `--mark: "0": 0 means unmarked; give another number, or omit the flag`},
		{append([]string{"run"}, forwarding("--mark", "0x0")...), "0 means unmarked"},
		{append([]string{"run"}, forwarding("--low-watermark", "0")...), "--low-watermark 0: want 1 or more"},
		{rules("--mark", "0"), "0 means unmarked"},
		{rules("--ssh-port", "0"), `--ssh-port: "0": want a port from 1 to 65535`},
		{rules("--ssh-port", "22,0"), `"0": want a port`},
		{rules("--table", "0"), "--table 0: want 1 or more"},
		{rules("--confirm", "0"), "--confirm 0s: want more than 0"},
		{rules("--dport", "0"), `"0" is not a port`},
		{rules("--on-down", "half"), `--on-down: "half": want open or closed`},
		{[]string{"rules", "remove", "--mark", "0"}, "0 means unmarked"},
		{[]string{"rules", "remove", "--table", "0"}, "--table 0"},
		{[]string{"rules", "verify", "--table", "0"}, "--table 0"},
	} {
		if got := refusal(t, c.args...); !strings.Contains(got, c.want) {
			t.Errorf("%q: refused for %q, want %q", c.args, got, c.want)
		}
	}
}

// TestRulesFlagsAreRead: those whose type is their own.
func TestRulesFlagsAreRead(t *testing.T) {
	c := new(commands)
	parser, err := application(nil).Parser(c, new(bytes.Buffer), new(bytes.Buffer), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(strings.Fields("rules print --listen :9091 --in eth1 --ssh-port 22,2222 --mark 0x10 --table 100 --on-down closed")); err != nil {
		t.Fatal(err)
	}
	cfg, err := c.Rules.Print.config()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintln(cfg.SSHPorts, cfg.Mark, cfg.Table, cfg.OnDown); got != "[22 2222] 16 100 closed\n" {
		t.Error(got)
	}
}
