package bottleneck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/netlab"
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
	rest        = 300 * time.Millisecond // for what is still in flight
)

// muchStolen is the share of the CPU time that, taken by the machine's host, spoils a
// transfer: a slow link leaves no gaps to catch up in.
const muchStolen = 0.02

// Setup is what the transfers of a measurement have in common.
type Setup struct {
	Path   Path
	Reader Reader
	Length time.Duration
	Every  time.Duration // between samples
	Unsent int           // see Transfer
	Flows  int           // see Transfer
	// Ordinary has each relay measured twice: first with a sender that leaves its send
	// buffer to its kernel, as most programs do, and then with one that keeps to Unsent.
	// Delays and pending bytes are those of the second transfer, all else of the first.
	Ordinary bool
	Redirect bool // connections come to the relays by REDIRECT rules, not TPROXY's
	// Again is how often a transfer is repeated when the machine's host took much of the
	// CPU time meanwhile. The one that it took least from counts.
	Again   int
	Self    string   // path of tpbench
	TPRelay string   // path of tprelay
	Flags   []string // for tprelay, whatever its variant
	// Watermark is tprelay's high watermark with these flags, for the results.
	Watermark int64
}

// Measured is what was seen of one transfer through one relay, or none.
type Measured struct {
	Round    int     `json:"round"`
	Relay    string  `json:"relay"`
	Resident int64   `json:"relay_resident_at_start_bytes,omitempty"`
	Stolen   float64 `json:"stolen_cpu_share"` // of the machine's CPU time, by its host
	Figures  Figures `json:"figures"`
	Record
	// Timed is the second transfer, with Setup.Ordinary.
	Timed *Record `json:"timed,omitempty"`
}

// timed is the transfer from which delays are taken.
func (m *Measured) timed() *Record {
	if m.Timed != nil {
		return m.Timed
	}
	return &m.Record
}

// Run makes the hosts anew, starts the relay and measures one transfer, several times if
// the machine's host disturbs it. Nothing is left when it returns. tell, if not nil, is
// given every sample as it is taken.
func (s *Setup) Run(ctx context.Context, p relays.Relay, tell func(Sample)) (best *Measured, err error) {
	for try := 0; ; try++ {
		before, err := procstat.Stolen()
		if err != nil {
			return nil, err
		}
		m, err := s.once(ctx, p, tell)
		if err != nil {
			return nil, err
		}
		after, err := procstat.Stolen()
		if err != nil {
			return nil, err
		}
		m.Stolen = after.Minus(before).Share()
		if best == nil || m.Stolen < best.Stolen {
			best = m
		}
		if best.Stolen <= muchStolen || try >= s.Again {
			return best, nil
		}
	}
}

func (s *Setup) once(ctx context.Context, p relays.Relay, tell func(Sample)) (m *Measured, err error) {
	// Nothing may hang for ever: twice the time and then some is far too long.
	ctx, cancel := context.WithTimeout(ctx, 4*s.Length+2*time.Minute)
	defer cancel()
	st, err := s.stage(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	m = &Measured{Relay: p.Name}
	if m.Resident, err = st.resident(); err != nil {
		return nil, err
	}
	t := st.transfer
	t.Tell = tell
	if s.Ordinary {
		t.Unsent = 0
		t.Admin = netip.AddrPort{} // its answers take memory that is not the transfer's
	}
	r, err := st.run(ctx, t)
	if err != nil {
		return nil, err
	}
	m.Record = *r
	if s.Ordinary {
		if !sleep(ctx, rest) {
			return nil, ctx.Err()
		}
		if m.Timed, err = st.run(ctx, st.transfer); err != nil {
			return nil, err
		}
	}
	m.Figures = s.figures(m)
	return m, nil
}

// stage is a relay at work, and the transfer that is to go through it.
type stage struct {
	lab      *netlab.Lab
	relay    *relays.Running
	transfer Transfer
}

// stage makes the hosts, starts the relay and warms it up.
func (s *Setup) stage(ctx context.Context, p relays.Relay) (_ *stage, err error) {
	if s.Redirect {
		if p, err = p.Redirected(); err != nil {
			return nil, err
		}
	}
	st := &stage{}
	if st.lab, err = s.Path.Lab(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	env := relays.Env{
		Lab: st.lab, Self: s.Self, TPRelay: s.TPRelay, Flags: s.Flags,
		Listen: netip.AddrPortFrom(loopback, relayPort),
		Server: netip.AddrPortFrom(st.lab.H3.Addr4, serverPort),
	}
	st.transfer = Transfer{
		Lab: st.lab, Server: env.Server, Flows: s.Flows, Length: s.Length, Every: s.Every, Reader: s.Reader,
		Unsent: s.Unsent, Relayed: p.Way != relays.Direct,
	}
	// Of many connections, telling of each takes memory that is not theirs.
	if strings.HasPrefix(p.Name, "tprelay") && s.Flows <= 1 {
		st.transfer.Admin = netip.AddrPortFrom(loopback, adminPort)
		env.Flags = append([]string{"--admin", st.transfer.Admin.String()}, env.Flags...)
	}
	if st.relay, err = p.Start(ctx, env); err != nil {
		return nil, err
	}
	st.transfer.Target, st.transfer.PIDs = st.relay.Target(), st.relay.PIDs
	if !st.transfer.Relayed {
		return st, nil
	}
	w := st.transfer
	w.Flows, w.Length, w.Every, w.Reader = 1, warmUp, warmUpEvery, Reader{}
	if _, err := st.run(ctx, w); err != nil {
		return nil, fmt.Errorf("warm-up: %w", err)
	}
	if !sleep(ctx, rest) {
		return nil, ctx.Err()
	}
	return st, nil
}

// run does a transfer. What became of the relay is part of the error.
func (st *stage) run(ctx context.Context, t Transfer) (*Record, error) {
	r, err := t.Run(ctx)
	if err != nil {
		return nil, errors.Join(err, st.relay.Err())
	}
	return r, nil
}

// resident is the memory of the relay's processes.
func (st *stage) resident() (bytes int64, err error) {
	for _, pid := range st.relay.PIDs() {
		resident, err := procstat.Resident(pid)
		if err != nil {
			return 0, err
		}
		bytes += resident
	}
	return bytes, nil
}

// close stops the relay and gives up the hosts.
func (st *stage) close() error {
	var errs []error
	if st.relay != nil {
		errs = append(errs, st.relay.Stop())
	}
	return errors.Join(append(errs, st.lab.Close())...)
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
