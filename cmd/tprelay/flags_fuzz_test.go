package main

import (
	"net/netip"
	"strings"
	"testing"
)

// oneLine fails for an error that would not be one line on standard error.
func oneLine(t *testing.T, text string, err error) {
	t.Helper()
	if strings.ContainsAny(err.Error(), "\n\r") {
		t.Fatalf("%q: an error of several lines: %q", text, err)
	}
}

func TestNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "10.1.2.3/8": "10.0.0.0/8", "192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::1/128",
		"::ffff:10.1.2.3": "10.1.2.3/32", "::ffff:10.1.2.3/104": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
	} {
		var n networkFlag
		if err := n.UnmarshalText([]byte(text)); err != nil || n.String() != want {
			t.Errorf("%q: %v, %v; want %s", text, n, err, want)
		}
	}
	for _, text := range []string{"", "10", "10.0.0.0/33", "fe80::1%eth0", "fe80::1%eth0/64", "example.com", "1.2.3.4:80", "10.0.0.0/-1"} {
		var n networkFlag
		if err := n.UnmarshalText([]byte(text)); err == nil || n.IsValid() {
			t.Errorf("%q: %v, %v", text, n, err)
		}
	}
}

func FuzzNetwork(f *testing.F) {
	for _, text := range []string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "::ffff:1.2.3.4/104", "::/90", "fe80::1%eth0", "10/8", "\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var n, again networkFlag
		if err := n.UnmarshalText([]byte(text)); err != nil {
			oneLine(t, text, err)
			if n.IsValid() {
				t.Fatalf("%q: %v in spite of %v", text, n, err)
			}
			return
		}
		if !n.IsValid() || n.Masked() != n.Prefix || !n.Contains(n.Addr()) || n.Addr().Is4In6() && n.Bits() >= 96 {
			t.Fatalf("%q: %v", text, n)
		}
		if err := again.UnmarshalText([]byte(n.String())); err != nil || again != n {
			t.Fatalf("%q is %v, which reads as %v, %v", text, n, again, err)
		}
	})
}

func FuzzMark(f *testing.F) {
	for _, text := range []string{"0", "0x74", "0xffffffff", "0x100000000", "-1", "1_0", "0b1", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m markFlag
		if err := m.UnmarshalText([]byte(text)); err != nil {
			oneLine(t, text, err)
			if m != 0 {
				t.Fatalf("%q: %d in spite of %v", text, m, err)
			}
		}
	})
}

func FuzzModeAndSpoofFlags(f *testing.F) {
	for _, text := range []string{"tproxy", "REDIRECT", "forward", "full", "ip,none", "full, ip", "default", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m, m2 modeFlag
		if err := m.UnmarshalText([]byte(text)); err != nil {
			oneLine(t, text, err)
		} else if err := m2.UnmarshalText([]byte(m.String())); err != nil || m2 != m {
			t.Fatalf("%q is mode %v, which reads as %v, %v", text, m, m2, err)
		}
		var s, s2 spoofFlag
		if err := s.UnmarshalText([]byte(text)); err != nil {
			oneLine(t, text, err)
		} else if err := s2.UnmarshalText([]byte(s.String())); err != nil || s2 != s {
			t.Fatalf("%q is spoof %v, which reads as %v, %v", text, s, s2, err)
		}
	})
}

func FuzzAdmin(f *testing.F) {
	for _, text := range []string{"127.0.0.1:9092", "[::1]:0", ":9092", "localhost:1", "[fe80::1%x]:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var a, again adminFlag
		if err := a.UnmarshalText([]byte(text)); err != nil {
			oneLine(t, text, err)
			return
		}
		if err := again.UnmarshalText([]byte(a.String())); err != nil || again != a {
			t.Fatalf("%q is %v, which reads as %v, %v", text, a, again, err)
		}
	})
}

// FuzzInheritance: what a program of another version, or anybody, left in the
// environment.
func FuzzInheritance(f *testing.F) {
	f.Add(`{"relay":3,"admin":4,"listen":["[::]:9091","127.0.0.1:80"]}`)
	f.Add(`{"relay":3,"listen":null,"new":true}`)
	f.Add(`{"relay":0}`)
	f.Add(`3`)
	f.Fuzz(func(t *testing.T, text string) {
		in, err := parseInheritance(text)
		if err != nil {
			oneLine(t, text, err)
			return
		}
		if in.Relay < 3 || in.Admin == in.Relay || in.Admin < 0 {
			t.Fatalf("%q: %+v", text, in)
		}
		// Whatever it says, the addresses are used or not; nothing else happens.
		c := runCmd{}
		c.Listen = append(c.Listen, listenFlags(netip.MustParseAddrPort("127.0.0.1:0"))...)
		if at, err := c.listeners(nil, in.Listen); err != nil || len(at) != 1 || at[0].address.Addr().String() != "127.0.0.1" {
			t.Fatalf("%q: %v, %v", text, at, err)
		}
	})
}
