package ends

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

const (
	// dialers is how many connections are opened at a time.
	dialers = 64
	// dialLimit is how long one may take to stand.
	dialLimit = 5 * time.Second
	// setUpLimit is how long all may take, with one reply each, and stallLimit how
	// long they wait while none has it: a relay with no descriptors left will not
	// have more for being waited for.
	setUpLimit = time.Minute
	stallLimit = 10 * time.Second
	// replyLimit is how long a reply may take, or an exchange on a connection of
	// its own.
	replyLimit = 5 * time.Second
)

// population is many connections on gnet's loops. Each sends one request when it is
// opened; what happens then is the business of its owner, by replied.
type population struct {
	gnet.BuiltinEventEngine
	job    Job
	clock  clock
	faults faults
	// stallLimit is the constant, or less in a test.
	stallLimit time.Duration
	stall      *time.Timer // ends the set-up; each first reply puts it off
	// replied is called for each complete reply but the first, on the member's
	// loop and with the member locked.
	replied func(m *member, now time.Duration)

	client   *gnet.Client
	members  []*member
	stood    atomic.Int64
	unset    atomic.Int64  // members that neither stand nor have failed
	allSet   chan struct{} // closed at 0
	ending   atomic.Bool   // connections that end are none of ours to count
	mu       sync.Mutex
	loops    map[gnet.EventLoop]*loop
	stopOnce sync.Once
}

// loop is what belongs to one of gnet's loops, and is touched there alone.
type loop struct {
	*tally
	request []byte // scratch
}

// member is one of the connections.
type member struct {
	number int
	failed atomic.Bool // counted as an error
	set    atomic.Bool // stands, or has failed
	loop   *loop       // set when it is opened, for its loop

	mu    sync.Mutex
	conn  gnet.Conn // nil: not open, or not any more
	seed  byte
	left  int           // bytes of the reply to come; 0: none is outstanding
	first time.Duration // when the latency of the outstanding request begins
	wrote time.Duration // when it was written

	due, sent uint64 // requests of the open loop, see pacer
}

func newPopulation(job Job, c clock, replied func(*member, time.Duration)) *population {
	p := &population{
		job: job, clock: c, replied: replied, stallLimit: stallLimit,
		allSet: make(chan struct{}), loops: map[gnet.EventLoop]*loop{}, members: make([]*member, job.Connections),
	}
	for i := range p.members {
		p.members[i] = &member{number: i, seed: byte(i * 7 % period)} // neighbours differ
	}
	p.unset.Store(int64(len(p.members)))
	return p
}

// setUp opens the connections, and returns when each stands, and has had a reply, or
// has failed. An error means that there can be none, or that ctx has ended.
func (p *population) setUp(ctx context.Context) error {
	client, err := gnet.NewClient(p, gnet.WithMulticore(p.job.Threads > 1), gnet.WithNumEventLoop(p.job.Threads),
		gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogger(new(quiet)))
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	p.client = client
	limit, cancel := context.WithTimeoutCause(ctx, setUpLimit, fmt.Errorf("no reply, %v after the first connection was opened", setUpLimit))
	defer cancel()
	stalled, stall := context.WithCancelCause(limit)
	defer stall(nil)
	p.stall = time.AfterFunc(p.stallLimit, func() {
		stall(fmt.Errorf("no reply, nor one to any other connection for %v", p.stallLimit))
	})
	defer p.stall.Stop()
	p.open(stalled)
	select {
	case <-p.allSet:
		return nil
	case <-stalled.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, m := range p.members {
		if !m.set.Load() {
			p.lose(m, context.Cause(stalled))
		}
	}
	return nil
}

// open opens the connections. It returns when all are open, or have failed, or ctx
// has ended.
func (p *population) open(ctx context.Context) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAlive: -1}
	todo := make(chan *member)
	var opening sync.WaitGroup
	for range min(dialers, len(p.members)) {
		opening.Go(func() {
			for m := range todo {
				c, err := dial(ctx, &dialer, p.job.Address)
				if err == nil {
					_, err = p.client.EnrollContext(c, m)
				}
				if err != nil && ctx.Err() == nil {
					p.lose(m, err)
				}
			}
		})
	}
	for _, m := range p.members {
		if ctx.Err() != nil {
			break
		}
		todo <- m
	}
	close(todo)
	opening.Wait()
}

// settle: the member stands, or has failed.
func (p *population) settle(m *member) {
	if m.set.CompareAndSwap(false, true) && p.unset.Add(-1) == 0 {
		close(p.allSet)
	}
}

// lose counts a connection as failed, once.
func (p *population) lose(m *member, err error) {
	if m.failed.CompareAndSwap(false, true) {
		p.faults.note(err)
	}
	p.settle(m)
}

// loopOf is what belongs to one of gnet's loops.
func (p *population) loopOf(events gnet.EventLoop) *loop {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loops[events]
	if l == nil {
		l = &loop{newTally(), make([]byte, p.job.Request)}
		p.loops[events] = l
	}
	return l
}

// OnOpen sends the first request.
func (p *population) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	m := c.Context().(*member)
	m.loop = p.loopOf(c.EventLoop())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn = c
	now := p.clock.now()
	p.send(m, now, now, m.loop.request)
	return nil, gnet.None
}

// send sends a request now, the latency of which begins at first, built in scratch.
// The member is locked, open, and has none outstanding.
//
// It writes to the socket by itself, from whatever goroutine: to have the loop do it
// would wake the loop once more for each request of the open loop. That is sound as
// gnet closes no descriptor before OnClose has returned, which takes the lock.
func (p *population) send(m *member, first, now time.Duration, scratch []byte) {
	m.first, m.wrote, m.left = first, now, p.job.Reply
	m.seed = byte((int(m.seed) + 1) % period)
	request{length: p.job.Request, reply: p.job.Reply, seed: m.seed}.put(scratch)
	n, err := unix.Write(m.conn.Fd(), scratch)
	if err != nil && err != unix.EAGAIN {
		return // the loop sees it too, and OnClose has the error
	}
	if rest := scratch[max(n, 0):]; len(rest) > 0 {
		_ = m.conn.AsyncWrite(bytes.Clone(rest), nil) // on error as above
	}
}

// sendAll sends a request on every connection that is open and free.
func (p *population) sendAll() {
	scratch := make([]byte, p.job.Request)
	for _, m := range p.members {
		m.mu.Lock()
		if m.conn != nil && m.left == 0 {
			now := p.clock.now()
			p.send(m, now, now, scratch)
		}
		m.mu.Unlock()
	}
}

// OnTraffic takes what has come of a reply.
func (p *population) OnTraffic(c gnet.Conn) gnet.Action {
	m, ok := c.Context().(*member)
	if !ok {
		return gnet.Close
	}
	data, _ := c.Next(-1) // fails on other numbers only
	if len(data) == 0 {
		return gnet.None
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(data) > m.left || checkPattern(data, int(m.seed)+p.job.Reply-m.left) != nil {
		p.lose(m, errWrongBytes)
		return gnet.Close
	}
	if m.left -= len(data); m.left > 0 {
		return gnet.None
	}
	if m.failed.Load() {
		return gnet.Close // it came too late
	}
	if !m.set.Load() {
		p.stood.Add(1)
		p.stall.Reset(p.stallLimit)
		p.settle(m)
		return gnet.None
	}
	p.replied(m, p.clock.now())
	return gnet.None
}

// OnClose notes that a connection is lost.
func (p *population) OnClose(c gnet.Conn, err error) gnet.Action {
	m, ok := c.Context().(*member)
	if !ok {
		return gnet.None
	}
	m.mu.Lock()
	m.conn = nil
	m.mu.Unlock()
	if p.ending.Load() {
		_ = c.SetLinger(0) // a reset: its port is free again at once
		return gnet.None
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("connection closed by the other end")
	}
	p.lose(m, fmt.Errorf("connection lost: %w", err))
	return gnet.None
}

// stop resets all connections, and ends the loops. Nobody may send any more. It may
// be called again.
func (p *population) stop() {
	p.stopOnce.Do(func() {
		p.ending.Store(true)
		if p.client != nil {
			_ = p.client.Stop() // of no consequence: all has been counted
		}
	})
}

// finish stops, and tells what was counted. Connections that have waited for a reply
// for so long are errors.
func (p *population) finish(r *Result, patience time.Duration) {
	r.Connections = uint64(p.stood.Load())
	now := p.clock.now()
	p.stop()
	for _, m := range p.members { // nobody else has them now
		if m.left > 0 && now-m.wrote >= patience {
			p.lose(m, fmt.Errorf("connection is dead: no reply for %v", (now-m.wrote).Round(time.Millisecond)))
		}
	}
	p.faults.tell(r)
}

// tallies are those of all loops. Only once stopped.
func (p *population) tallies() (all []*tally) {
	for _, l := range p.loops {
		all = append(all, l.tally)
	}
	return all
}
