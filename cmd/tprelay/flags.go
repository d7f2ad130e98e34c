package main

import (
	"fmt"
	"strconv"

	"github.com/tprelay/tprelay/tproxy"
)

// modeFlag is --mode.
type modeFlag struct{ tproxy.Mode }

// UnmarshalText reads the name of a mode.
func (m *modeFlag) UnmarshalText(text []byte) (err error) {
	m.Mode, err = tproxy.ParseMode(string(text))
	return err
}

// spoofFlag is --spoof.
type spoofFlag struct{ tproxy.Spoof }

// UnmarshalText reads a policy.
func (s *spoofFlag) UnmarshalText(text []byte) (err error) {
	s.Spoof, err = tproxy.ParseSpoof(string(text))
	return err
}

// markFlag is --mark, in decimal or, with 0x, hexadecimal.
type markFlag uint32

// UnmarshalText reads a mark.
func (m *markFlag) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 0, 32)
	if err != nil {
		return fmt.Errorf("%q: want a number up to 0xffffffff, such as 0x74 or 116", text)
	}
	*m = markFlag(n)
	return nil
}
