package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a number of bytes on the command line: 65536, 64KiB, 1MiB, 64KB.
type size int64

// unit is a suffix of a size.
type unit struct {
	name  string
	bytes int64
}

// units returns the suffixes of sizes. B comes last, because the others end in it.
func units() []unit {
	return []unit{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
		{"B", 1},
	}
}

// UnmarshalText parses a size.
func (s *size) UnmarshalText(text []byte) error {
	number, factor := strings.TrimSpace(string(text)), int64(1)
	for _, u := range units() {
		if cut := len(number) - len(u.name); cut > 0 && strings.EqualFold(number[cut:], u.name) {
			number, factor = strings.TrimRight(number[:cut], " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return fmt.Errorf("size %q: want bytes, or a whole number with KiB, MiB, GiB, KB, MB or GB, such as 256KiB", text)
	}
	if int64(n) > math.MaxInt64/factor {
		return fmt.Errorf("size %q: too large", text)
	}
	*s = size(int64(n) * factor)
	return nil
}

// String returns the size in the largest binary unit that divides it.
func (s size) String() string {
	switch {
	case s == 0:
		return "0"
	case s%(1<<30) == 0:
		return fmt.Sprintf("%dGiB", s>>30)
	case s%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", s>>20)
	case s%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", s>>10)
	}
	return strconv.FormatInt(int64(s), 10)
}
