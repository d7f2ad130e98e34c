package bottleneck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/procstat"
)

// Sample is the state of a transfer at one time. Rates and delay are of the time since the
// previous sample. Fields without a value are left out.
type Sample struct {
	At           float64  `json:"at_s"` // since the connection was established
	SenderRate   float64  `json:"sender_bit_per_s"`
	ArrivedRate  float64  `json:"arrived_bit_per_s"`
	SentBytes    int64    `json:"sent_bytes"`
	ArrivedBytes int64    `json:"arrived_bytes"`
	Delay        *float64 `json:"delay_ms,omitempty"`             // one way, median
	Memory       int64    `json:"relay_resident_bytes,omitempty"` // of the relay's processes
	Relay        *Relay   `json:"relay,omitempty"`                // of tprelay only
	Sender       *TCP     `json:"sender,omitempty"`               // the sender's socket on h1
	Incoming     *TCP     `json:"incoming,omitempty"`             // the relay's, to the sender
	Outgoing     *TCP     `json:"outgoing,omitempty"`             // the relay's, to the receiver
	Receiver     *TCP     `json:"receiver,omitempty"`             // the receiver's socket on h3
}

// inFlight is the number of bytes that were sent and had not arrived.
func (s Sample) inFlight() int64 { return s.SentBytes - s.ArrivedBytes }

// delay is the delay in ms, if something arrived since the previous sample.
func (s Sample) delay() (ms float64, ok bool) {
	if s.Delay == nil {
		return 0, false
	}
	return *s.Delay, true
}

// ofRelay is a value of what tprelay reports, for the samples that have it.
func ofRelay(f func(*Relay) float64) func(Sample) (float64, bool) {
	return func(s Sample) (float64, bool) {
		if s.Relay == nil {
			return 0, false
		}
		return f(s.Relay), true
	}
}

// end is an end of a connection on a host.
type end struct{ local, remote netip.AddrPort }

// sampler takes the samples of a transfer.
type sampler struct {
	clock  clock
	counts *counts
	delays *delays
	admin  *admin // nil if the relay has none
	client netip.AddrPort
	pids   func() []int
	diags  [3]*Diag // of h1, h2, h3
	ends   [4]end   // as in Sample; on h1, h2, h2, h3

	seen  int // delays in earlier samples
	ready []Sample
}

// open opens sock_diag on each host.
func (s *sampler) open(lab *netlab.Lab) error {
	for i, h := range []*netlab.Host{lab.H1, lab.H2, lab.H3} {
		err := h.Do(func() (err error) {
			s.diags[i], err = OpenDiag()
			return err
		})
		if err != nil {
			s.close()
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return nil
}

func (s *sampler) close() {
	for _, d := range s.diags {
		if d != nil {
			d.Close()
		}
	}
	if s.admin != nil {
		s.admin.close()
	}
}

// look takes a sample.
func (s *sampler) look(ctx context.Context) (Sample, error) {
	at := s.clock.now().Seconds()
	now := Sample{At: at, SentBytes: s.counts.sent.Load(), ArrivedBytes: s.counts.arrived.Load()}
	var before Sample
	if len(s.ready) > 0 {
		before = s.ready[len(s.ready)-1]
	}
	now.SenderRate = Interval{before.At, at, now.SentBytes - before.SentBytes}.Rate()
	now.ArrivedRate = Interval{before.At, at, now.ArrivedBytes - before.ArrivedBytes}.Rate()
	var took []float64
	for _, d := range s.delays.since(s.seen) {
		took = append(took, d.took*1000)
	}
	s.seen += len(took)
	if len(took) > 0 {
		slices.Sort(took)
		now.Delay = &took[len(took)/2]
	}
	for _, pid := range s.pids() {
		resident, err := procstat.Resident(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // if it was the relay itself, the transfer fails
		}
		if err != nil {
			return now, err
		}
		now.Memory += resident
	}
	for i, to := range []**TCP{&now.Sender, &now.Incoming, &now.Outgoing, &now.Receiver} {
		e := s.ends[i]
		if !e.local.IsValid() {
			continue
		}
		t, err := s.diags[[]int{0, 1, 1, 2}[i]].Look(e.local, e.remote)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return now, err
		}
		*to = t
	}
	if s.admin != nil {
		var err error
		if now.Relay, err = s.admin.look(ctx, s.client); err != nil {
			return now, err
		}
	}
	return now, nil
}

// run takes samples until ctx ends, and hands them to tell, if that is not nil.
func (s *sampler) run(ctx context.Context, every time.Duration, tell func(Sample)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, err := s.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.ready = append(s.ready, now)
		if tell != nil {
			tell(now)
		}
	}
}
