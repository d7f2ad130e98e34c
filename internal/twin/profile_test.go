package twin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
)

// Paths through the relay.
const (
	splice  = "splice"
	buffers = "buffers"
	handler = "handler"
)

// setting is what a batch of scripts has in common.
type setting struct {
	Path    string   `json:"path"`
	Mode    string   `json:"mode"`
	Profile string   `json:"profile"`
	Flags   []string `json:"flags,omitempty"`
	Fault   fault    `json:"fault,omitempty"`
}

// combination is what the setting and an IP version make.
func (s setting) combination(v6 bool) string {
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	return fmt.Sprintf("%s, %s, %s", s.Path, s.Mode, family)
}

// combinations of a path and a mode.
func combinations() (all []setting) {
	for _, path := range []string{splice, buffers, handler} {
		for _, mode := range []string{"tproxy", "redirect"} {
			all = append(all, setting{Path: path, Mode: mode})
		}
	}
	return all
}

// flags are those of the relay.
func (s setting) flags() []string {
	flags := append([]string(nil), s.Flags...)
	switch s.Path {
	case buffers:
		flags = append(flags, "--no-splice")
	case handler:
		flags = append(flags, "--intercept", fmt.Sprintf("replace=%s:%s", escape(original), escape(replaced)))
	}
	return append(flags, profiles[s.Profile].flags...)
}

func escape(text string) (all string) {
	for _, b := range []byte(text) {
		all += fmt.Sprintf(`\x%02x`, b)
	}
	return all
}

func (s setting) String() string {
	text, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// profile is a kind of batch.
type profile struct {
	flags  []string
	draw   func(*rand.Rand) script
	narrow bool // the hosts' socket buffers are small
	most   int  // scripts at once; 0: as many as there are
	faults []fault
}

// profiles are all kinds of batches. Most of them provoke a whole kind of faults
// that relays have:
//
//   - silent, steady: a reader that pauses, or is slow, behind a sender that has finished, for longer than
//     the relay's timers. Its kernel acknowledges or answers probes, so it is alive.
//   - resets: megabytes in front of an RST, to a reader that is slow and steady, and bytes that a handler holds
//     back in front of one.
//   - whole: no RST, which is lost for good when a link is down.
//   - narrow: both ways at once through small socket buffers. No direction may stand still.
var profiles = map[string]profile{
	"any":    {draw: drawAny, faults: []fault{none, none, upgrade, pause}},
	"whole":  {draw: drawWhole, faults: []fault{outage}},
	"silent": {draw: drawPausing, flags: []string{"--half-close-timeout", "2s"}, faults: []fault{none, none, upgrade}},
	"steady": {draw: drawSteady, flags: []string{"--half-close-timeout", "2s", "--idle-timeout", "3s"}, faults: []fault{none, none, upgrade}},
	"resets": {draw: drawResets, faults: []fault{none, none, none, upgrade}},
	"narrow": {draw: drawTwoWays, narrow: true, most: 120, faults: []fault{none}},
}

// schedule is the order of profiles.
var schedule = []string{"any", "silent", "whole", "resets", "any", "steady", "narrow"}

// drawSetting draws what the n-th batch has in common. All combinations come equally often, and each has
// every profile.
func drawSetting(n int, r *rand.Rand) setting {
	all := combinations()
	s := all[n%len(all)]
	s.Profile = schedule[(n%len(all)+n/len(all))%len(schedule)]
	p := profiles[s.Profile]
	s.Fault = p.faults[r.IntN(len(p.faults))]
	if s.Profile == "any" {
		if r.IntN(3) == 0 {
			s.Flags = append(s.Flags, "--high-watermark", []string{"16KiB", "64KiB", "4MiB"}[r.IntN(3)])
		}
		if r.IntN(3) == 0 {
			s.Flags = append(s.Flags, "--loops", []string{"1", "3"}[r.IntN(2)])
		}
	}
	return s
}
