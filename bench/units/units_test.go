package units

import (
	"fmt"
	"strings"
	"testing"
)

func TestRatesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]Rate{
		"20mbit": 20_000_000, "20 Mbit/s": 20_000_000, "6M": 6_000_000, "1.5gbit": 1_500_000_000,
		"800kbit": 800_000, "8k": 8000, "8000": 8000, "8000bit": 8000, "1000gbit": maxRate, "0.0625mbit": 62500,
	} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q: %d, %v", text, uint64(r), err)
		}
	}
	for _, text := range []string{"", "mbit", "-1mbit", "+9mbit", "1e9", "0x10mbit", "inf", "nan", "5mbps", "5MB", "1.2.3m", "7999", "1001gbit", "20 m bit", "5//s"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %d", text, uint64(r))
		}
	}
}

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "65536": 65536, "64KiB": 65536, "64 kb": 64000, "1.5MiB": 3 << 19, "2GB": 2e9, "7B": 7} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1e3", "9999999999GiB"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %d", text, s)
		}
	}
}

func TestQuantitiesAreWrittenInTheUnitThatFits(t *testing.T) {
	for want, got := range map[string]string{
		"20 Mbit/s":   Rate(20_000_000).String(),
		"1.5 Gbit/s":  Rate(1_500_000_000).String(),
		"64 kbit/s":   Rate(64_000).String(),
		"19.1 Mbit/s": FormatRate(19_123_456, 1),
		"999.0 bit/s": FormatRate(999, 1),
		"0.0 bit/s":   FormatRate(0, 1),
		"16.3 MiB":    FormatBytes(17_091_789),
		"256 KiB":     FormatBytes(256 << 10),
		"1023 B":      FormatBytes(1023),
		"2.0 GiB":     FormatBytes(2 << 30),
	} {
		if got != want {
			t.Errorf("got %q, wanted %q", got, want)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, text := range []string{"20mbit", "6 Mbit/s", "1.5g", "8000", "", "mbit", "0.00000000000001tbit", "9e99", "١mbit", "/s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r Rate
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		if r < minRate || r > maxRate {
			t.Errorf("%q: %d is out of bounds", text, uint64(r))
		}
		for _, again := range []string{fmt.Sprintf("%dbit", uint64(r)), strings.ToUpper(text), r.String()} {
			var same Rate
			if err := same.UnmarshalText([]byte(again)); err != nil || same != r {
				t.Errorf("%q is %d, but %q is %d, %v", text, uint64(r), again, uint64(same), err)
			}
		}
	})
}

func TestFiguresHaveThreeDigits(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 65389.7: "65,390", 1234567: "1,234,567", 999.6: "1,000", 100: "100", 42.34: "42.3", 1.005: "1.00", 0.2149: "0.215", 0.00012: "0.00012", -1234: "-1,234",
	} {
		if got := Figure(x); got != want {
			t.Errorf("%g: %s, want %s", x, got, want)
		}
	}
}
