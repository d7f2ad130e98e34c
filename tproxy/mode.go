package tproxy

import (
	"fmt"
	"strings"
)

// Mode says how connections come to a listener and so how their original destination is learned.
// The zero value is no mode: a listener that nobody chose a mode for must not be a transparent one.
type Mode uint8

const (
	// TPROXY: the netfilter target TPROXY (nft: tproxy) hands over connections unchanged. The
	// accepted socket's local address is the destination. It needs CAP_NET_ADMIN.
	TPROXY Mode = iota + 1
	// Redirect: the netfilter target REDIRECT rewrites the destination to the listener, and
	// connection tracking remembers the original one.
	Redirect
	// Forward: clients connect to the listener on purpose, and every connection goes to one fixed
	// upstream. It needs no privilege.
	Forward
)

// String gives the name that the command line uses: tproxy, redirect, forward.
func (m Mode) String() string {
	switch m {
	case TPROXY:
		return "tproxy"
	case Redirect:
		return "redirect"
	case Forward:
		return "forward"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseMode reads the name of a mode, in upper or lower case. There is no default.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{TPROXY, Redirect, Forward} {
		if strings.EqualFold(s, m.String()) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q: want tproxy, redirect or forward", s)
}

// Spoof is how the source address of an outgoing connection is chosen.
// Each value is the top of a ladder that is climbed down when a step fails
// because its address is taken (EADDRINUSE, EADDRNOTAVAIL):
//
//	full  the client's address and port, then ip
//	ip    the client's address, a port chosen by the kernel
//	none  an address of this host
//
// A ladder ends at ip: that none follows must be asked for (SpoofFullOrNone,
// SpoofIPOrNone), for it shows the server this host instead of the client.
type Spoof uint8

const (
	// SpoofDefault is SpoofFull in TPROXY mode and SpoofNone otherwise.
	SpoofDefault Spoof = iota
	SpoofFull
	SpoofIP
	SpoofNone
	SpoofFullOrNone
	SpoofIPOrNone
)

var spoofNames = map[Spoof]string{
	SpoofDefault:    "default",
	SpoofFull:       "full",
	SpoofIP:         "ip",
	SpoofNone:       "none",
	SpoofFullOrNone: "full,none",
	SpoofIPOrNone:   "ip,none",
}

// String gives the name that the command line uses.
func (s Spoof) String() string {
	if n, ok := spoofNames[s]; ok {
		return n
	}
	return fmt.Sprintf("spoof(%d)", uint8(s))
}

// ParseSpoof reads a policy: full, ip, none, "full,none" or "ip,none".
// "full,ip" and "full,ip,none" are long forms of "full" and "full,none".
func ParseSpoof(text string) (Spoof, error) {
	switch strings.ToLower(strings.ReplaceAll(text, " ", "")) {
	case "", "default":
		return SpoofDefault, nil
	case "full", "full,ip":
		return SpoofFull, nil
	case "full,none", "full,ip,none":
		return SpoofFullOrNone, nil
	case "ip":
		return SpoofIP, nil
	case "ip,none":
		return SpoofIPOrNone, nil
	case "none":
		return SpoofNone, nil
	}
	return 0, fmt.Errorf("spoof %q: want full, ip, none, or with a last resort: full,none or ip,none", text)
}

// Step is the rung of the ladder that an outgoing connection stands on.
type Step uint8

const (
	StepNone Step = iota
	StepIP
	StepFull
	Steps // the number of steps
)

// String gives full, ip or none.
func (s Step) String() string {
	switch s {
	case StepFull:
		return "full"
	case StepIP:
		return "ip"
	}
	return "none"
}

// First is the step that policy s begins with in mode m.
func (s Spoof) First(m Mode) Step {
	switch s {
	case SpoofFull, SpoofFullOrNone:
		return StepFull
	case SpoofIP, SpoofIPOrNone:
		return StepIP
	case SpoofDefault:
		if m == TPROXY {
			return StepFull
		}
	}
	return StepNone
}

// Next is the step to try after step failed; ok is false at the ladder's end.
func (s Spoof) Next(step Step) (next Step, ok bool) {
	switch {
	case step == StepFull:
		return StepIP, true
	case step == StepIP && (s == SpoofFullOrNone || s == SpoofIPOrNone):
		return StepNone, true
	}
	return step, false
}

// MarshalText makes a mode its name in JSON.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads it again.
func (m *Mode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMode(string(text))
	return err
}

// MarshalText makes a step its name in JSON.
func (s Step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads it again.
func (s *Step) UnmarshalText(text []byte) error {
	for step := range Steps {
		if step.String() == string(text) {
			*s = step
			return nil
		}
	}
	return fmt.Errorf("step %q: want full, ip or none", text)
}
