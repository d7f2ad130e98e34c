package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

type grammar struct {
	Ask  ask  `cmd:"" help:"Ask for something."`
	Fail fail `cmd:"" help:"Fail."`
}

type ask struct {
	Count int      `help:"How often."`
	Name  string   `help:"Whom."`
	Words []string `arg:"" optional:"" help:"What."`
	Loud  bool     `help:"Aloud."`
}

func (a ask) Run() error {
	if a.Count < 0 {
		return Usagef("--count %d: want 0 or more", a.Count)
	}
	return nil
}

type fail struct{}

func (fail) Run() error { return errors.New("first\nsecond\n") }

func TestExitStatusAndOneLine(t *testing.T) {
	for args, want := range map[string]struct {
		status int
		says   string
	}{
		"ask":            {OK, ""},
		"ask --count=-1": {Usage, "demo: --count -1: want 0 or more\n"},
		"ask --count x":  {Usage, "; see demo ask --help\n"},
		"nothing":        {Usage, "; see demo --help\n"},
		"":               {Usage, "; see demo --help\n"},
		"fail":           {Failure, "demo: first; second\n"},
	} {
		var stdout, stderr strings.Builder
		status := Application{Name: "demo"}.Run(new(grammar), strings.Fields(args), &stdout, &stderr)
		said := stderr.String()
		if status != want.status || !strings.HasSuffix(said, want.says) || want.says == "" && said != "" || strings.Count(said, "\n") > 1 || stdout.Len() > 0 {
			t.Errorf("%q: status %d, %q; want %d, %q", args, status, said, want.status, want.says)
		}
	}
	var stdout, stderr strings.Builder
	if status := (Application{Name: "demo"}).Run(new(grammar), []string{"ask", "--help"}, &stdout, &stderr); status != OK || !strings.Contains(stdout.String(), "How often.") {
		t.Errorf("--help: status %d, %s%s", status, &stdout, &stderr)
	}
}

func TestEmptyValuesAreRefused(t *testing.T) {
	for _, args := range [][]string{{"--name="}, {"--name", ""}, {"--name", " "}, {"--count="}, {""}, {"word", ""}} {
		var stdout, stderr strings.Builder
		status := Application{Name: "demo"}.Run(new(grammar), append([]string{"ask"}, args...), &stdout, &stderr)
		if status != Usage || !strings.Contains(stderr.String(), ": the value is empty; give one, or omit it; see demo ask --help\n") {
			t.Errorf("%q: status %d, %q", args, status, &stderr)
		}
	}
	for _, args := range [][]string{{"--name=x", "--loud", "word", "two"}, {"--loud=false"}} {
		var stdout, stderr strings.Builder
		if status := (Application{Name: "demo"}).Run(new(grammar), append([]string{"ask"}, args...), &stdout, &stderr); status != OK {
			t.Errorf("%q: status %d, %q", args, status, &stderr)
		}
	}
}

func TestUsageErrorsStayErrors(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("while trying: %w", Usagef("flag: %w", cause))
	if !IsUsage(err) || !errors.Is(err, cause) || IsUsage(cause) || IsUsage(nil) {
		t.Error(err)
	}
}

func TestListen(t *testing.T) {
	for text, want := range map[string]string{
		":9091": "[::]:9091", "127.0.0.1:0": "127.0.0.1:0", "[::1]:80": "[::1]:80", "[::ffff:10.0.0.1]:80": "10.0.0.1:80", "0.0.0.0:1": "0.0.0.0:1",
	} {
		var l Listen
		if err := l.UnmarshalText([]byte(text)); err != nil || l.String() != want {
			t.Errorf("%q: %v, %v; want %s", text, l, err, want)
		}
	}
}

func FuzzListen(f *testing.F) {
	for _, text := range []string{":9091", "127.0.0.1:0", "[::1]:80", "[::ffff:1.2.3.4]:65535", "[fe80::1%eth0]:1", ":", "localhost:1", ":99999", "1.2.3.4"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var l, again Listen
		if err := l.UnmarshalText([]byte(text)); err != nil {
			if l.IsValid() || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q: %v, %q", text, l, err)
			}
			return
		}
		if l.Addr().Is4In6() {
			t.Fatalf("%q: %v is IPv4 in IPv6", text, l)
		}
		if err := again.UnmarshalText([]byte(l.String())); err != nil || again != l {
			t.Fatalf("%q is %v, which reads as %v, %v", text, l, again, err)
		}
	})
}
