package flow

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

// standing is how long a connection through a relay may take to stand.
const standing = 10 * time.Second

// Transfer is one connection from h1 to h3 on which the sender sends as much as it
// takes, and what is to be seen of it.
type Transfer struct {
	Lab    *netlab.Lab
	Target netip.AddrPort // where the sender connects to
	Server netip.AddrPort // where the receiver listens
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
	// Tell, if not nil, is told every sample as it is taken.
	Tell func(Sample)
}

// Record is what was seen of a transfer.
type Record struct {
	Client    netip.AddrPort `json:"client"`     // the sender's end, as it knows it
	ServerSaw netip.AddrPort `json:"server_saw"` // the same as the receiver knows it
	Samples   []Sample       `json:"samples"`
	delays    []delay
}

// Sent is what the sender's socket took, between samples.
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

// Run does it. It ends by itself some time after Length at the latest, and leaves nothing
// behind. The error is that of the end that failed, or of ctx.
func (t Transfer) Run(ctx context.Context) (*Record, error) {
	sender, receiver, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer receiver.Close()
	// What is on its way is of no interest: it would take long to arrive.
	defer sender.Close()
	sender.SetLinger(0)
	r := &Record{Client: addrPort(sender.LocalAddr()), ServerSaw: addrPort(receiver.RemoteAddr())}
	var moved counts
	c := clock{time.Now()}
	b := &blocks{clock: c}
	s := &sampler{clock: c, counts: &moved, blocks: b, client: r.Client, pids: t.PIDs}
	if s.pids == nil {
		s.pids = func() []int { return nil }
	}
	s.ends[0], s.ends[3] = end{r.Client, t.Target}, end{t.Server, r.ServerSaw}
	if t.Relayed {
		s.ends[1], s.ends[2] = end{t.Target, r.Client}, end{r.ServerSaw, t.Server}
	}
	if err := s.open(t.Lab); err != nil {
		return nil, err
	}
	defer s.close()
	if t.Admin.IsValid() {
		s.admin = newAdmin(t.Lab.H2, t.Admin)
	}

	timed, cancel := context.WithTimeout(ctx, t.Length)
	defer cancel()
	defer context.AfterFunc(timed, func() {
		past := time.Unix(1, 0)
		sender.SetDeadline(past)
		receiver.SetDeadline(past)
	})()
	tell := t.Tell
	if tell == nil {
		tell = func(Sample) {}
	}
	var doing sync.WaitGroup
	failed := make([]error, 3)
	do := func(i int, what string, f func() error) {
		doing.Go(func() {
			if err := f(); err != nil {
				failed[i] = fmt.Errorf("%s: %w", what, err)
				cancel()
			}
		})
	}
	do(0, "sender", func() error { return send(sender, c, &moved, t.Unsent) })
	do(1, "receiver", func() error { return t.Reader.read(timed, receiver, b, &moved) })
	do(2, "samples", func() error { return s.run(timed, t.Every, tell) })
	doing.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	r.Samples, r.delays = s.ready, b.since(0)
	if len(r.Samples) == 0 {
		return nil, errors.New("no sample was taken: the machine is too busy")
	}
	return r, nil
}

// connect makes the connection.
func (t Transfer) connect(ctx context.Context) (sender, receiver *net.TCPConn, err error) {
	l, err := t.Lab.H3.Listen("tcp", t.Server.String())
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	listener := l.(*net.TCPListener)
	if err := t.Reader.prepare(listener); err != nil {
		return nil, nil, fmt.Errorf("receive buffer: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, standing)
	defer cancel()
	c, err := t.Lab.H1.Dial(ctx, "tcp", t.Target.String())
	if err != nil {
		return nil, nil, err
	}
	sender = c.(*net.TCPConn)
	defer context.AfterFunc(ctx, func() { listener.SetDeadline(time.Unix(1, 0)) })()
	c, err = listener.Accept()
	if err != nil {
		sender.Close()
		return nil, nil, fmt.Errorf("the connection did not come to the receiver: %w", err)
	}
	return sender, c.(*net.TCPConn), nil
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
