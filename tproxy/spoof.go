package tproxy

import (
	"fmt"
	"slices"
	"strings"
)

// Spoof is the policy for the source addresses of outgoing connections. Each policy begins at one
// [SpoofLevel] and goes on to the next when an address is taken (EADDRINUSE, EADDRNOTAVAIL):
//
//	full       the client's address and port, then ip
//	ip         the client's address, and a port that the kernel chooses
//	none       an address of this host
//	full,none  full, then ip, then none
//	ip,none    ip, then none
//
// That none follows must be asked for, because it shows the server this host instead of the client.
type Spoof uint8

const (
	// SpoofDefault is SpoofFull in TPROXY mode and SpoofNone in the others.
	SpoofDefault Spoof = iota
	SpoofFull
	SpoofIP
	SpoofNone
	SpoofFullOrNone
	SpoofIPOrNone
)

var spoofNames = [...]string{
	SpoofDefault: "default", SpoofFull: "full", SpoofIP: "ip", SpoofNone: "none", SpoofFullOrNone: "full,none", SpoofIPOrNone: "ip,none",
}

// String gives the name that the command line uses.
func (s Spoof) String() string {
	if int(s) < len(spoofNames) {
		return spoofNames[s]
	}
	return fmt.Sprintf("spoof(%d)", uint8(s))
}

// ParseSpoof reads the name of a policy, in upper or lower case: full, ip, none, "full,none" or
// "ip,none". "full,ip" and "full,ip,none" are long forms of "full" and "full,none". An empty text
// is the default.
func ParseSpoof(text string) (Spoof, error) {
	name := strings.ToLower(strings.ReplaceAll(text, " ", ""))
	switch name {
	case "":
		return SpoofDefault, nil
	case "full,ip":
		return SpoofFull, nil
	case "full,ip,none":
		return SpoofFullOrNone, nil
	}
	if i := slices.Index(spoofNames[:], name); i >= 0 {
		return Spoof(i), nil
	}
	return 0, fmt.Errorf("spoof %q: want full, ip, none, or with a last resort: full,none or ip,none", text)
}

// SpoofLevel is how much of the client's address an outgoing connection has.
type SpoofLevel uint8

const (
	LevelNone SpoofLevel = iota // an address of this host
	LevelIP                     // the client's address, another port
	LevelFull                   // the client's address and port
)

// String gives full, ip or none.
func (l SpoofLevel) String() string {
	switch l {
	case LevelFull:
		return "full"
	case LevelIP:
		return "ip"
	}
	return "none"
}

// MarshalText gives the name of l, which stands for it in JSON.
func (l SpoofLevel) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the name of a level.
func (l *SpoofLevel) UnmarshalText(text []byte) error {
	for _, level := range []SpoofLevel{LevelNone, LevelIP, LevelFull} {
		if level.String() == string(text) {
			*l = level
			return nil
		}
	}
	return fmt.Errorf("spoof level %q: want full, ip or none", text)
}

// First is the level that the policy begins with in mode m.
func (s Spoof) First(m Mode) SpoofLevel {
	switch s {
	case SpoofFull, SpoofFullOrNone:
		return LevelFull
	case SpoofIP, SpoofIPOrNone:
		return LevelIP
	case SpoofDefault:
		if m == TPROXY {
			return LevelFull
		}
	}
	return LevelNone
}

// next is the level to try when there is no address of the given one. ok is false if the policy has
// none.
func (s Spoof) next(level SpoofLevel) (next SpoofLevel, ok bool) {
	switch {
	case level == LevelFull:
		return LevelIP, true
	case level == LevelIP && (s == SpoofFullOrNone || s == SpoofIPOrNone):
		return LevelNone, true
	}
	return level, false
}
