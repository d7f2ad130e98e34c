package twin

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

// outcome is what the two ends of a connection saw.
type outcome struct {
	Client, Server view
}

// cutAsleep: an end heard of an RST, and one did nothing for so long that a timer of the relay may
// have meant it, as the test itself did not get a CPU.
func (o outcome) cutAsleep() bool {
	c, s := o.Client, o.Server
	return max(c.Overslept, s.Overslept) > slack && (c.Heard == RST || s.Heard == RST) && c.Wrong == "" && s.Wrong == ""
}

// patience is for how long an end waits for anything beyond what its script waits for.
const patience = 25 * time.Second

// stagger is how long after the one before it a script begins: hundreds at the same moment would
// wait for a CPU and for nothing else.
const stagger = 5 * time.Millisecond

// stage is a lab in which scripts are played.
type stage struct {
	lab     *netlab.Lab
	relayed bool
	handled bool // by the relay's handler
	ports   atomic.Uint32
	streams atomic.Int64
}

// port gives the next port of a range that is not used again soon.
func (s *stage) port() uint16 { return uint16(2000 + s.ports.Add(1)%28000) }

// play plays scripts at the same time. Each gives one outcome, or two if it is to be played again
// from the same port. An error says that it could not be played.
func (s *stage) play(scripts []script, extra time.Duration) ([][]outcome, []error) {
	outcomes, errs := make([][]outcome, len(scripts)), make([]error, len(scripts))
	var wg sync.WaitGroup
	for i, c := range scripts {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * stagger) // they begin one after the other
			outcomes[i], errs[i] = s.playOne(c, extra)
		})
	}
	wg.Wait()
	return outcomes, errs
}

func (s *stage) playOne(c script, extra time.Duration) (all []outcome, err error) {
	h1, h3 := s.lab.H1.Addr4, s.lab.H3.Addr4
	if c.V6 {
		h1, h3 = s.lab.H1.Addr6, s.lab.H3.Addr6
	}
	to, from := netip.AddrPortFrom(h3, s.port()), netip.AddrPort{}
	var l *socket
	if c.Absent != refused {
		if l, err = listen(s.lab.H3, to, c.Server.Options); err != nil {
			return nil, err
		}
		defer l.file.Close()
	}
	rounds := 1
	if c.Again {
		rounds = 2
		from = netip.AddrPortFrom(h1, s.port())
	}
	limit := time.Now().Add(c.lasts() + extra + patience)
	for range rounds {
		all = append(all, s.connection(c, l, from, to, limit))
	}
	return all, nil
}

// connection plays one connection.
func (s *stage) connection(c script, l *socket, from, to netip.AddrPort, limit time.Time) (o outcome) {
	n, began := s.streams.Add(2), time.Now()
	up, down := stream(n), stream(n+1)
	over := make(chan struct{}) // the client is
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(over)
		o.Client = s.client(c, from, to, up, down, began, limit)
	})
	switch c.Absent {
	case refused:
	case deaf:
		time.Sleep(time.Second) // it listens for a while, and accepts nothing
		l.file.Close()
	default:
		o.Server = s.server(c, l, up, down, began, limit, over)
	}
	wg.Wait()
	return o
}

func (s *stage) client(c script, from, to netip.AddrPort, up, down content, began, limit time.Time) view {
	sock, early, err := dial(s.lab.H1, from, to, c.Client.Options, limit)
	took := time.Since(began)
	if err != nil {
		v := view{Heard: errnoName(err), ReadWait: took, Longest: took}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			v.Hung = "connect"
		}
		return v
	}
	e := newEnd(c.Client, sock, up, down, s.handled, began, limit)
	if early {
		e.toldBy(unix.ECONNRESET)
	}
	e.ReadWait, e.Longest = took, took
	e.run()
	return e.view
}

func (s *stage) server(c script, l *socket, up, down content, began, limit time.Time, over <-chan struct{}) view {
	time.Sleep(time.Duration(c.Late)) // it accepts late
	// A client that is gone for some time has no connection that is still to come.
	stop := make(chan struct{})
	defer close(stop)
	l.file.SetReadDeadline(limit)
	go func() {
		select {
		case <-stop:
			return
		case <-over:
		}
		select {
		case <-stop:
		case <-time.After(lateness):
			l.file.SetReadDeadline(time.Now())
		}
	}()
	sock, err := l.accept(c.Server.Options, limit)
	if err != nil {
		return view{}
	}
	e := newEnd(c.Server, sock, down, up, s.handled, began, limit)
	e.run()
	return e.view
}

// lateness is how long after the end of its client a connection is waited for.
const lateness = 3 * time.Second

// errnoName is the name of the errno in an error, or what else it says.
func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}
