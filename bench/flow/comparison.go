package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
)

// Direct is the relay that is none, to which the others are compared.
const Direct = "direct"

// Comparison is what several relays did with the same transfer, in turn, in rounds.
type Comparison struct {
	Settings Settings    `json:"settings"`
	Relays   []Name      `json:"relays"`
	Notes    []string    `json:"notes,omitempty"`
	Runs     []*Measured `json:"runs"`
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
	Rounds     int       `json:"rounds"`
}

// Settings are those of the setup.
func (s *Setup) Settings() Settings {
	set := Settings{
		Began: time.Now(), Access: s.Path.Access, Bottleneck: s.Path.Bottleneck, Reader: "link",
		Queue: s.Path.Queue.Seconds(), Delay: s.Path.Delay.Seconds(), Seconds: int(s.Length.Seconds()),
		Every: s.Every.Seconds(), Unsent: s.Unsent, Rounds: 1,
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
// of them. step, if not nil, is told what comes next.
func (s *Setup) Compare(ctx context.Context, all []relays.Relay, c *Comparison, step func(round int, relay string)) error {
	for round := range c.Settings.Rounds {
		for _, p := range all {
			if step != nil {
				step(round+1, p.Name)
			}
			m, err := s.Run(ctx, p, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			m.Round = round + 1
			c.Runs = append(c.Runs, m)
			c.Settings.Delay = s.Path.Delay.Seconds()
			if note := s.Path.Note; note != "" && !slices.Contains(c.Notes, note) {
				c.Notes = append(c.Notes, note)
			}
		}
		c.relate(round + 1)
	}
	return nil
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

// WriteJSON writes everything, samples included.
func (c *Comparison) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(c) }
