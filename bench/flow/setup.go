package flow

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/procstat"
)

// Where relay and receiver are.
const (
	relayPort  = 9091
	adminPort  = 9092
	serverPort = 5201
)

// The warm-up: a short connection with many samples, so that the relay's program,
// and what its admin end leaves to the garbage collector, are in memory before its
// growth is measured.
const (
	warmUp      = 500 * time.Millisecond
	warmUpEvery = 2 * time.Millisecond
	rest        = 300 * time.Millisecond // for what is still on its way
)

// Setup is what the transfers of a measurement have in common.
type Setup struct {
	Path    Path
	Reader  Reader
	Length  time.Duration
	Every   time.Duration // between samples
	Unsent  int           // see Transfer
	Self    string        // path of tpbench
	TPRelay string        // path of tprelay
	Flags   []string      // for tprelay, whatever its variant
}

// Measured is what was seen of one transfer through one relay, or none.
type Measured struct {
	Round    int     `json:"round"`
	Relay    string  `json:"relay"`
	Resident int64   `json:"relay_resident_at_start_bytes,omitempty"`
	Figures  Figures `json:"figures"`
	Record
}

// Run makes the hosts anew, starts the relay and measures one transfer. Nothing is left
// when it returns. tell, if not nil, is told every sample as it is taken.
func (s *Setup) Run(ctx context.Context, p relays.Relay, tell func(Sample)) (m *Measured, err error) {
	// Nothing may hang for ever: twice the time and then some is far too long.
	ctx, cancel := context.WithTimeout(ctx, 2*s.Length+time.Minute)
	defer cancel()
	lab, err := s.Path.Lab()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	env := relays.Env{
		Lab: lab, Self: s.Self, TPRelay: s.TPRelay, Flags: s.Flags,
		Listen: netip.AddrPortFrom(loopback, relayPort),
		Server: netip.AddrPortFrom(lab.H3.Addr4, serverPort),
	}
	t := Transfer{Lab: lab, Server: env.Server, Length: s.Length, Every: s.Every, Reader: s.Reader, Unsent: s.Unsent, Relayed: p.Way != relays.Direct, Tell: tell}
	if strings.HasPrefix(p.Name, "tprelay") {
		t.Admin = netip.AddrPortFrom(loopback, adminPort)
		env.Flags = append([]string{"--admin", t.Admin.String()}, env.Flags...)
	}
	relay, err := p.Start(ctx, env)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, relay.Stop()) }()
	t.Target, t.PIDs = relay.Target(), relay.PIDs
	if t.Relayed {
		w := t
		w.Length, w.Every, w.Reader, w.Tell = warmUp, warmUpEvery, Reader{}, nil
		if _, err := w.Run(ctx); err != nil {
			return nil, fmt.Errorf("warm-up: %w", err)
		}
		if !sleep(ctx, rest) {
			return nil, ctx.Err()
		}
	}
	m = &Measured{Relay: p.Name}
	for _, pid := range relay.PIDs() {
		resident, err := procstat.Resident(pid)
		if err != nil {
			return nil, err
		}
		m.Resident += resident
	}
	r, err := t.Run(ctx)
	if err != nil {
		return nil, errors.Join(err, relay.Err())
	}
	m.Record = *r
	m.Figures = s.figures(m)
	return m, nil
}

// target is the rate to which the sender has to settle, in bit/s.
func (s *Setup) target() float64 {
	switch {
	case s.Reader.Stopped:
		return 0
	case s.Reader.Pace > 0:
		return float64(8 * s.Reader.Pace)
	}
	return Goodput(float64(s.Path.Bottleneck))
}
