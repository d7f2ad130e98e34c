package twin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
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
	varied bool          // the relay's watermark and number of loops are drawn
	narrow bool          // the hosts' socket buffers are small
	crowd  int           // scripts at once, as what goes wrong does so in a crowd; 0: as many as there are
	busy   time.Duration // that calls may wait longer, as scripts keep the machine busy
	faults []fault
}

// profiles are all kinds of batches. Most of them provoke a whole kind of faults
// that relays have:
//
//   - silent, steady: a reader that pauses, or is slow, behind a sender that has finished, for
//     longer than the relay's timers. Its kernel acknowledges or answers probes, so it is alive.
//   - resets: megabytes in front of an RST, to a reader that is slow and steady, and bytes that a
//     handler holds back in front of one.
//   - whole: no RST, which is lost for good when a link is down.
//   - narrow: many streams at once, both ways, through small socket buffers, to readers that are
//     slower than their senders. No direction may stand still.
var profiles = map[string]profile{
	"any":    {draw: drawAny, varied: true, faults: []fault{none, none, upgrade, pause}},
	"whole":  {draw: drawWhole, faults: []fault{outage}},
	"silent": {draw: drawPausing, flags: []string{"--half-close-timeout", "2s"}, faults: []fault{none, none, upgrade}},
	"steady": {draw: drawSteady, flags: []string{"--half-close-timeout", "2s", "--idle-timeout", "3s"}, faults: []fault{none, none, upgrade}},
	"resets": {draw: drawResets, faults: []fault{none, none, none, upgrade}},
	"narrow": {draw: drawTwoWays, varied: true, narrow: true, crowd: 120, busy: 3 * time.Second, faults: []fault{none}},
}

// schedule is the order of profiles.
var schedule = []string{"any", "silent", "whole", "resets", "any", "steady", "narrow"}

// short are the batches of a run without a duration, for CI: all profiles and all faults, whatever
// the seed, and each combination twice.
var short = []struct {
	profile string
	fault   fault
}{
	{"steady", none}, {"narrow", none}, {"resets", none}, {"any", pause}, {"silent", upgrade}, {"whole", outage},
	{"silent", none}, {"any", upgrade}, {"any", none}, {"whole", outage}, {"any", none}, {"any", none},
}

// setting draws what the n-th batch has in common. All combinations come equally often, and each
// has every profile.
func (c config) setting(n int, r *rand.Rand) setting {
	all := combinations()
	s := all[n%len(all)]
	switch {
	case c.profile != "":
		s.Profile = c.profile
	case c.duration == 0:
		s.Profile, s.Fault = short[n].profile, short[n].fault
	default:
		s.Profile = schedule[(n%len(all)+n/len(all))%len(schedule)]
		faults := profiles[s.Profile].faults
		s.Fault = faults[r.IntN(len(faults))]
	}
	if profiles[s.Profile].varied {
		if r.IntN(3) == 0 {
			s.Flags = append(s.Flags, "--high-watermark", []string{"16KiB", "64KiB", "4MiB"}[r.IntN(3)])
		}
		if r.IntN(3) == 0 {
			s.Flags = append(s.Flags, "--loops", []string{"1", "3"}[r.IntN(2)])
		}
	}
	return s
}

func TestShortRunsHaveEverything(t *testing.T) {
	profile, faulty, combined := map[string]bool{}, map[fault]bool{}, map[string]int{}
	for n := range short {
		s := config{}.setting(n, testRandom())
		profile[s.Profile], faulty[s.Fault] = true, true
		combined[s.combination(false)]++
	}
	for name := range profiles {
		if !profile[name] {
			t.Errorf("no batch has the profile %s", name)
		}
	}
	for _, f := range faults {
		if !faulty[f.fault] {
			t.Errorf("no batch has the fault %q", f.fault)
		}
	}
	for _, s := range combinations() {
		if n := combined[s.combination(false)]; n != len(short)/len(combinations()) {
			t.Errorf("%d batches of %s, %s", n, s.Path, s.Mode)
		}
	}
}
