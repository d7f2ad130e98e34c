package bottleneck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// How long connections through a relay may take to be established: the first, and each
// further one.
const (
	connectTimeout = 10 * time.Second
	perConnection  = 200 * time.Millisecond
)

// Transfer is one connection from h1 to h3, or several, on which the sender sends as much
// as they take, and what is to be recorded of it.
type Transfer struct {
	Lab    *netlab.Lab
	Target netip.AddrPort // where the sender connects to
	Server netip.AddrPort // where the receiver listens
	Flows  int            // connections; sockets are looked at of the first. Default: 1
	Length time.Duration
	Every  time.Duration // between samples
	Reader Reader
	// Unsent is how many bytes the sender's kernel may hold that are not sent yet
	// (TCP_NOTSENT_LOWAT). 0: as many as it likes.
	Unsent int
	// Relayed: there is a relay on h2, whose sockets are looked at. PIDs gives its
	// processes, and Admin, if valid, is the admin end of a tprelay, on h2.
	Relayed bool
	PIDs    func() []int
	Admin   netip.AddrPort
	// Tell, if not nil, is given every sample as it is taken.
	Tell func(Sample)
	// Beside, if not nil, runs at the same time, until it returns or ctx ends.
	Beside func(ctx context.Context) error
}

// Record is what was seen of a transfer.
type Record struct {
	Client    netip.AddrPort `json:"client"`     // the first connection's client, as the client knows it
	ServerSaw netip.AddrPort `json:"server_saw"` // the same as the server sees it
	Samples   []Sample       `json:"samples"`
	Failed    int            `json:"failed,omitempty"` // connections, of several, that ended early
	Error     string         `json:"error,omitempty"`  // of the first of these
	delays    []delay
}

// Sent is what the sender's sockets took, between samples.
func (r *Record) Sent() []Interval {
	return r.intervals(func(s Sample) int64 { return s.SentBytes })
}

// Arrived is what the receiver read, between samples.
func (r *Record) Arrived() []Interval {
	return r.intervals(func(s Sample) int64 { return s.ArrivedBytes })
}

func (r *Record) intervals(count func(Sample) int64) (intervals []Interval) {
	var before Sample
	for _, s := range r.Samples {
		intervals = append(intervals, Interval{before.At, s.At, count(s) - count(before)})
		before = s
	}
	return intervals
}

// Run does the transfer. It ends by itself some time after Length at the latest, and leaves
// nothing behind. The error is that of the end that failed, or of ctx. Of several
// connections some may fail; the record counts them.
func (t Transfer) Run(ctx context.Context) (*Record, error) {
	senders, receivers, err := t.connect(ctx)
	// What is in flight at the end is of no interest and would take long to arrive: a reset
	// discards it.
	defer closeAll(receivers)
	defer closeAll(senders)
	if err != nil {
		return nil, err
	}
	for _, c := range senders {
		c.SetLinger(0)
	}
	r := &Record{Client: addrPort(senders[0].LocalAddr()), ServerSaw: addrPort(receivers[0].RemoteAddr())}
	var moved counts
	var took delays
	c := clock{time.Now()}
	s := t.sampler(c, r, &moved, &took)
	if err := s.open(t.Lab); err != nil {
		return nil, err
	}
	defer s.close()

	timed, cancel := context.WithTimeout(ctx, t.Length)
	defer cancel()
	defer context.AfterFunc(timed, func() {
		past := time.Unix(1, 0)
		for i := range senders {
			senders[i].SetDeadline(past)
			receivers[i].SetDeadline(past)
		}
	})()
	var doing sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	do := func(what string, f func() error) {
		doing.Go(func() {
			err := f()
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, fmt.Errorf("%s: %w", what, err))
			cancel()
		})
	}
	// lose notes a connection that failed. The only one is the whole transfer.
	lose := func(err error) error {
		if err == nil || len(senders) == 1 {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Failed++; r.Error == "" {
			r.Error = err.Error()
		}
		return nil
	}
	for i := range senders {
		b := &blocks{clock: c, delays: &took}
		do("sender", func() error { return lose(send(senders[i], c, &moved, t.Unsent)) })
		do("receiver", func() error { return lose(t.Reader.read(timed, receivers[i], b, &moved)) })
	}
	do("samples", func() error { return s.run(timed, t.Every, t.Tell) })
	if t.Beside != nil {
		do("beside it", func() error { return t.Beside(timed) })
	}
	doing.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	r.Samples, r.delays = s.ready, took.since(0)
	if len(r.Samples) == 0 {
		return nil, errors.New("no sample was taken: the machine is too busy")
	}
	return r, nil
}

// sampler is what looks at the transfer's first connection.
func (t Transfer) sampler(c clock, r *Record, moved *counts, took *delays) *sampler {
	s := &sampler{clock: c, counts: moved, delays: took, client: r.Client, pids: t.PIDs}
	if s.pids == nil {
		s.pids = func() []int { return nil }
	}
	s.ends[0], s.ends[3] = end{r.Client, t.Target}, end{t.Server, r.ServerSaw}
	if t.Relayed {
		s.ends[1], s.ends[2] = end{t.Target, r.Client}, end{r.ServerSaw, t.Server}
	}
	if t.Admin.IsValid() {
		s.admin = newAdmin(t.Lab.H2, t.Admin)
	}
	return s
}

// connect makes the connections. Those that it returns are to be closed, on error too.
// The first sender and the first receiver are the ends of one connection.
func (t Transfer) connect(ctx context.Context) (senders, receivers []*net.TCPConn, err error) {
	l, err := t.Lab.H3.Listen("tcp", t.Server.String())
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	listener := l.(*net.TCPListener)
	if err := t.Reader.prepare(listener); err != nil {
		return nil, nil, fmt.Errorf("receive buffer: %w", err)
	}
	flows := max(t.Flows, 1)
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+time.Duration(flows)*perConnection)
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.SetDeadline(time.Unix(1, 0)) })()
	dial := func(n int) error {
		for range n {
			c, err := t.Lab.H1.Dial(ctx, "tcp", t.Target.String())
			if err != nil {
				return err
			}
			senders = append(senders, c.(*net.TCPConn))
		}
		return nil
	}
	accept := func(n int) error {
		for range n {
			c, err := listener.Accept()
			if err != nil {
				return fmt.Errorf("the connection did not come to the receiver: %w", err)
			}
			receivers = append(receivers, c.(*net.TCPConn))
		}
		return nil
	}
	if err := dial(1); err != nil {
		return senders, receivers, err
	}
	if err := accept(1); err != nil {
		return senders, receivers, err
	}
	accepted := make(chan error, 1)
	go func() { accepted <- accept(flows - 1) }()
	if err = dial(flows - 1); err != nil {
		cancel()
	}
	err = errors.Join(err, <-accepted)
	return senders, receivers, err
}

func closeAll(conns []*net.TCPConn) {
	for _, c := range conns {
		c.Close()
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
