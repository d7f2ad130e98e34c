package bottleneck

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
)

// Names of relays that mean more than the others.
const (
	Direct  = "direct"                  // no relay, to which the others are compared
	Control = "tprelay-no-flow-control" // shows what flow control is for
)

// Comparison is what several relays did with the same transfer, in turn, in rounds.
type Comparison struct {
	Settings Settings    `json:"settings"`
	Relays   []Name      `json:"relays"`
	Notes    []string    `json:"notes,omitempty"`
	Runs     []*Measured `json:"runs"`
	// Crowd is one more transfer of Settings.Crowd connections at once, if there was one.
	Crowd *Measured `json:"crowd,omitempty"`
}

// Name is how a relay is called on the command line, and in full.
type Name struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

// Settings are what the transfers had in common.
type Settings struct {
	Began      time.Time `json:"began"`
	Command    string    `json:"command,omitempty"`
	Access     uint64    `json:"access_bit_per_s"`
	Bottleneck uint64    `json:"bottleneck_bit_per_s"` // of the link, or of the reader
	Reader     string    `json:"reader"`
	Queue      float64   `json:"queue_s"` // before each link
	Delay      float64   `json:"delay_s"` // of each link, one way
	Seconds    int       `json:"seconds"`
	Skipped    int       `json:"skipped_s"` // at the beginning, which rates and delays leave out
	Every      float64   `json:"interval_s"`
	Unsent     int       `json:"unsent_bytes"`
	Ordinary   bool      `json:"ordinary_sender"`
	Flows      int       `json:"flows"`
	Crowd      int       `json:"crowd_flows,omitempty"`
	Rounds     int       `json:"rounds"`
	Watermark  int64     `json:"high_watermark_bytes"` // of tprelay
}

// Settings are those of the setup.
func (s *Setup) Settings() Settings {
	set := Settings{
		Began: time.Now(), Access: s.Path.Access, Bottleneck: s.Path.Bottleneck, Reader: "link",
		Queue: s.Path.Queue.Seconds(), Delay: s.Path.Delay.Seconds(), Seconds: int(s.Length.Seconds()),
		Every: s.Every.Seconds(), Unsent: s.Unsent, Ordinary: s.Ordinary, Flows: max(s.Flows, 1), Rounds: 1,
		Watermark: s.Watermark,
	}
	set.Skipped = Skipped(set.Seconds)
	switch {
	case s.Reader.Stopped:
		set.Reader = "stopped"
	case s.Reader.Pace > 0:
		set.Reader, set.Bottleneck = "slow", uint64(8*s.Reader.Pace)
	}
	return set
}

// Compare measures each relay in every round, and adds what it measured to c, also when
// it fails later. Relays take turns, so that what the machine does by itself meets all
// of them. At the end, the first relay but [Direct] gets Settings.Crowd connections at once.
// step, if not nil, is called with a description of each phase before it.
func (s *Setup) Compare(ctx context.Context, all []relays.Relay, c *Comparison, step func(what string)) error {
	if step == nil {
		step = func(string) {}
	}
	for round := range c.Settings.Rounds {
		for _, p := range all {
			step(fmt.Sprintf("round %d of %d: %s, %d s", round+1, c.Settings.Rounds, p.Name, s.transferSeconds()))
			m, err := s.Run(ctx, p, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			m.Round = round + 1
			c.Runs = append(c.Runs, m)
			c.Settings.Delay = s.Path.Delay.Seconds()
			c.note(s.Path.Note)
		}
		c.relate(round + 1)
	}
	if stolen := c.stolen(); stolen != "" {
		c.note(stolen)
	}
	if i := slices.IndexFunc(all, func(p relays.Relay) bool { return p.Name != Direct }); c.Settings.Crowd > 0 && i >= 0 {
		step(fmt.Sprintf("%s, %d connections, %d s", all[i].Name, c.Settings.Crowd, int(s.Length.Seconds())))
		crowd := *s
		crowd.Flows, crowd.Ordinary, crowd.Unsent = c.Settings.Crowd, false, 0
		m, err := crowd.Run(ctx, all[i], nil)
		if err != nil {
			return fmt.Errorf("%s, %d connections: %w", all[i].Name, c.Settings.Crowd, err)
		}
		c.Crowd = m
	}
	return nil
}

func (s *Setup) transferSeconds() int {
	if s.Ordinary {
		return 2 * int(s.Length.Seconds())
	}
	return int(s.Length.Seconds())
}

// note adds what there is to say, once.
func (c *Comparison) note(text string) {
	if text != "" && !slices.Contains(c.Notes, text) {
		c.Notes = append(c.Notes, text)
	}
}

// stolen says how many transfers the machine's host has disturbed.
func (c *Comparison) stolen() string {
	disturbed, most := 0, 0.0
	for _, m := range c.Runs {
		if m.Stolen > muchStolen {
			disturbed++
			most = max(most, m.Stolen)
		}
	}
	if disturbed == 0 {
		return ""
	}
	return fmt.Sprintf("the machine's host took up to %.0f %% of the CPU time during %d of %d transfers: figures that miss mean little", 100*most, disturbed, len(c.Runs))
}

// relate compares the relays of a round to no relay.
func (c *Comparison) relate(round int) {
	direct := c.of(round, Direct)
	if direct == nil {
		return
	}
	for _, m := range c.Runs {
		if m.Round == round && m.Relay != Direct {
			m.Figures.against(direct.Figures)
		}
	}
}

func (c *Comparison) of(round int, relay string) *Measured {
	for _, m := range c.Runs {
		if m.Round == round && m.Relay == relay {
			return m
		}
	}
	return nil
}

// rounds are the figures of a relay in all rounds.
func (c *Comparison) rounds(relay string) (rounds []Figures) {
	for _, m := range c.Runs {
		if m.Relay == relay {
			rounds = append(rounds, m.Figures)
		}
	}
	return rounds
}

// WriteJSON writes everything, samples included.
func (c *Comparison) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(c) }
