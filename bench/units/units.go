// Package units reads and writes rates and sizes as people do: 20mbit, 64KiB.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Rate is a rate on the command line, in bit/s: 20mbit, 1.5Gbit/s, 800k, 8000.
type Rate uint64

// The bounds of a rate: a link of less than minRate would need seconds for one
// packet, and one of more than maxRate is none that could be had.
const (
	minRate Rate = 8_000
	maxRate Rate = 1_000_000_000_000
)

// unit is a suffix and what it stands for.
type unit struct {
	name   string
	factor float64
}

// rateUnits has no "mbps": that is bits to iperf3 and bytes to tc.
func rateUnits() []unit {
	return []unit{
		{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1},
		{"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"", 1},
	}
}

func sizeUnits() []unit {
	return []unit{
		{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30},
		{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9},
		{"b", 1}, {"", 1},
	}
}

// quantity reads a number with one of the units, in any case: the first that
// fits, so none may come before one that it ends in.
func quantity(text string, units []unit) (float64, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		number = strings.TrimRight(number, " ")
		// Digits and a point, as people write quantities: no signs, exponents,
		// hexadecimal or infinities, which ParseFloat would take.
		if strings.Trim(number, "0123456789.") != "" {
			return 0, false
		}
		n, err := strconv.ParseFloat(number, 64)
		return n * u.factor, err == nil
	}
	return 0, false
}

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	n, ok := quantity(strings.TrimSuffix(strings.ToLower(string(text)), "/s"), rateUnits())
	if !ok {
		return fmt.Errorf("rate %q: want bit/s, or a number with kbit, mbit or gbit, such as 20mbit", text)
	}
	if n < float64(minRate) || n > float64(maxRate) {
		return fmt.Errorf("rate %q: must be between 8kbit and 1000gbit", text)
	}
	*r = Rate(math.Round(n))
	return nil
}

// String gives the rate as people read it: 20 Mbit/s.
func (r Rate) String() string {
	return strings.TrimSuffix(FormatRate(float64(r), -1), ".0")
}

// FormatRate gives bit/s in the unit that fits, with so many decimals; -1 for as
// many as it takes.
func FormatRate(bitPerSecond float64, decimals int) string {
	for _, u := range []unit{{"Gbit/s", 1e9}, {"Mbit/s", 1e6}, {"kbit/s", 1e3}} {
		if bitPerSecond >= u.factor {
			return strconv.FormatFloat(bitPerSecond/u.factor, 'f', decimals, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(bitPerSecond, 'f', max(decimals, 0), 64) + " bit/s"
}

// Size is a number of bytes on the command line: 65536, 64KiB, 1.5MB.
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, ok := quantity(string(text), sizeUnits())
	if !ok {
		return fmt.Errorf("size %q: want bytes, or a number with KiB, MiB, GiB, KB, MB or GB, such as 64KiB", text)
	}
	if n > 1<<60 {
		return fmt.Errorf("size %q: more than can be counted", text)
	}
	*s = Size(math.Round(n))
	return nil
}

// FormatBytes gives a number of bytes as people read it: 16.3 MiB, 256 KiB.
func FormatBytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// Thousands puts commas into a whole number: 65,390.
func Thousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// Plural gives "1 stream", "4 streams", "2,000 connections".
func Plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return Thousands(strconv.Itoa(n)) + " " + what
}

// Figure gives a number with at least three significant digits and thousands apart.
func Figure(x float64) string {
	switch a := math.Abs(x); {
	case a == 0:
		return "0"
	case a >= 100:
		return Thousands(strconv.FormatFloat(x, 'f', 0, 64))
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case a >= 0.0005:
		return strconv.FormatFloat(x, 'f', 3, 64)
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}
