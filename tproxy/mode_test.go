package tproxy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/tproxy"
)

var (
	modes    = []tproxy.Mode{tproxy.TPROXY, tproxy.Redirect, tproxy.Forward}
	policies = []tproxy.Spoof{tproxy.SpoofDefault, tproxy.SpoofFull, tproxy.SpoofIP, tproxy.SpoofNone, tproxy.SpoofFullOrNone, tproxy.SpoofIPOrNone}
)

func TestNamesAreReadBack(t *testing.T) {
	for _, m := range modes {
		for _, name := range []string{m.String(), strings.ToUpper(m.String())} {
			if got, err := tproxy.ParseMode(name); got != m || err != nil {
				t.Errorf("mode %q: %v, %v", name, got, err)
			}
		}
	}
	for _, s := range policies {
		for _, name := range []string{s.String(), strings.ToUpper(s.String()), strings.ReplaceAll(s.String(), ",", ", ")} {
			if got, err := tproxy.ParseSpoof(name); got != s || err != nil {
				t.Errorf("spoof %q: %v, %v", name, got, err)
			}
		}
	}
}

func TestLongFormsOfPolicies(t *testing.T) {
	for name, want := range map[string]tproxy.Spoof{
		"": tproxy.SpoofDefault, "full,ip": tproxy.SpoofFull, "full,ip,none": tproxy.SpoofFullOrNone, "Full, IP, None": tproxy.SpoofFullOrNone,
	} {
		if got, err := tproxy.ParseSpoof(name); got != want || err != nil {
			t.Errorf("spoof %q: %v, %v; want %v", name, got, err, want)
		}
	}
}

func TestUnknownNamesAreRefusedWithTheChoice(t *testing.T) {
	if _, err := tproxy.ParseMode("nat"); err == nil || err.Error() != `mode "nat": want tproxy, redirect or forward` {
		t.Errorf("mode: %v", err)
	}
	for _, name := range []string{"none,ip", "ip,full", "full,", ",", "spoof"} {
		if got, err := tproxy.ParseSpoof(name); err == nil || !strings.Contains(err.Error(), "want full, ip, none") {
			t.Errorf("spoof %q: %v, %v", name, got, err)
		}
	}
}

func TestValuesBeyondTheListHaveAName(t *testing.T) {
	for m, want := range map[tproxy.Mode]string{0: "mode(0)", 9: "mode(9)"} {
		if got := m.String(); got != want {
			t.Error(got)
		}
	}
	if got := tproxy.Spoof(9).String(); got != "spoof(9)" {
		t.Error(got)
	}
}

func TestNamesInJSON(t *testing.T) {
	got, err := json.Marshal(struct {
		Mode  tproxy.Mode
		Level tproxy.SpoofLevel
	}{tproxy.Redirect, tproxy.LevelIP})
	if err != nil || string(got) != `{"Mode":"redirect","Level":"ip"}` {
		t.Errorf("%s, %v", got, err)
	}
}

// Every policy's whole ladder, in every mode.
func TestLadder(t *testing.T) {
	for _, c := range []struct {
		policy tproxy.Spoof
		mode   tproxy.Mode
		want   string
	}{
		{tproxy.SpoofDefault, tproxy.TPROXY, "full ip"},
		{tproxy.SpoofDefault, tproxy.Redirect, "none"},
		{tproxy.SpoofDefault, tproxy.Forward, "none"},
		{tproxy.SpoofFull, tproxy.TPROXY, "full ip"},
		{tproxy.SpoofFull, tproxy.Redirect, "full ip"},
		{tproxy.SpoofFull, tproxy.Forward, "full ip"},
		{tproxy.SpoofFullOrNone, tproxy.TPROXY, "full ip none"},
		{tproxy.SpoofFullOrNone, tproxy.Forward, "full ip none"},
		{tproxy.SpoofIP, tproxy.TPROXY, "ip"},
		{tproxy.SpoofIP, tproxy.Redirect, "ip"},
		{tproxy.SpoofIPOrNone, tproxy.TPROXY, "ip none"},
		{tproxy.SpoofIPOrNone, tproxy.Forward, "ip none"},
		{tproxy.SpoofNone, tproxy.TPROXY, "none"},
		{tproxy.SpoofNone, tproxy.Redirect, "none"},
	} {
		level := c.policy.First(c.mode)
		got := level.String()
		for ok := true; ok; {
			last := level
			if level, ok = c.policy.Next(level); ok {
				got += " " + level.String()
			} else if level != last {
				t.Errorf("%v in mode %v: past its end the ladder goes to %v", c.policy, c.mode, level)
			}
		}
		if got != c.want {
			t.Errorf("%v in mode %v: %s; want %s", c.policy, c.mode, got, c.want)
		}
	}
}

func FuzzParseMode(f *testing.F) {
	for _, m := range modes {
		f.Add(m.String())
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := tproxy.ParseMode(text)
		if err != nil {
			return
		}
		if again, err := tproxy.ParseMode(m.String()); again != m || err != nil || !strings.EqualFold(text, m.String()) {
			t.Errorf("%q is mode %v, which reads as %v, %v", text, m, again, err)
		}
	})
}

func FuzzParseSpoof(f *testing.F) {
	for _, s := range policies {
		f.Add(s.String())
	}
	f.Add("full, ip, none")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := tproxy.ParseSpoof(text)
		if err != nil {
			return
		}
		if again, err := tproxy.ParseSpoof(s.String()); again != s || err != nil {
			t.Errorf("%q is policy %v, which reads as %v, %v", text, s, again, err)
		}
	})
}
