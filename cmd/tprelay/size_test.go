package main

import (
	"strings"
	"testing"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want size
		out  string
	}{
		{"0", 0, "0"},
		{"65536", 65536, "64KiB"},
		{"64KiB", 65536, "64KiB"},
		{"64 kib", 65536, "64KiB"},
		{" 1MiB ", 1 << 20, "1MiB"},
		{"2GiB", 2 << 30, "2GiB"},
		{"64KB", 64000, "64000"},
		{"1MB", 1000000, "1000000"},
		{"1GB", 1000000000, "1000000000"},
		{"10B", 10, "10"},
		{"1536KiB", 1536 << 10, "1536KiB"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	} {
		var got size
		if err := got.UnmarshalText([]byte(c.text)); err != nil || got != c.want || got.String() != c.out {
			t.Errorf("%q: %d (%v), %v; want %d (%s)", c.text, int64(got), got, err, int64(c.want), c.out)
		}
	}
	for _, text := range []string{"", "KiB", "B", "x", "-1", "1.5MiB", "64K", "1TiB", "0x10", "+1", "1_000", "9223372036854775808", "9223372036854775807KiB", "8589934592GiB"} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, text := range []string{"0", "256KiB", "1 MB", "9223372036854775807B", "-1GiB", "KiB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again size
		if err := s.UnmarshalText([]byte(text)); err != nil {
			if s != 0 || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q: %d, %q", text, int64(s), err)
			}
			return
		}
		if s < 0 {
			t.Fatalf("%q: %d", text, int64(s))
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Fatalf("%q is %d, and its name %v is %d, %v", text, int64(s), s, int64(again), err)
		}
	})
}
