package client

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
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
)

const (
	// dialers is how many connections are opened at a time.
	dialers = 64
	// dialLimit is how long one may take to be established.
	dialLimit = 5 * time.Second
	// stallLimit is how long connections wait for their first reply while none gets one. A relay
	// that has run out of descriptors will not have more later.
	stallLimit = 10 * time.Second
	// replyLimit is how long a reply may take, and an exchange on a connection of its own.
	replyLimit = 5 * time.Second
)

// connections are many connections on gnet's loops. Each sends one request when it is opened; after
// that its owner decides, in replied.
type connections struct {
	gnet.BuiltinEventEngine
	job     worker.Job
	clock   worker.Clock
	faults  worker.Faults
	payload protocol.Pattern
	// stallLimit is the constant, or less in a test.
	stallLimit time.Duration
	stall      *time.Timer // ends the set-up; each first reply puts it off
	// replied is called for each complete reply but the first, on the member's loop and with the
	// member locked.
	replied func(m *member, now time.Duration)

	client   *gnet.Client
	members  []*member
	stood    atomic.Int64
	unset    atomic.Int64  // members that are neither established nor failed
	allSet   chan struct{} // closed when unset is 0
	ending   atomic.Bool   // the ends of connections are not counted any more
	mu       sync.Mutex
	loops    map[gnet.EventLoop]*loop
	stopOnce sync.Once
}

// loop belongs to one of gnet's loops, and is accessed on it only.
type loop struct {
	tally   *worker.Tally
	request []byte // scratch
}

// member is one of the connections.
type member struct {
	number int
	failed atomic.Bool // counted as an error
	set    atomic.Bool // is established, or has failed
	loop   *loop       // set when it is opened, for its loop

	mu    sync.Mutex
	conn  gnet.Conn // nil: not open, or not any more
	seed  byte
	left  int           // bytes of the reply to come; 0: none is outstanding
	first time.Duration // when the latency of the outstanding request begins
	wrote time.Duration // when it was written

	due, sent uint64 // requests of the open loop, see pacer
}

func newConnections(job worker.Job, replied func(*member, time.Duration)) *connections {
	p := &connections{
		job: job, clock: worker.NewClock(), replied: replied, stallLimit: stallLimit, payload: protocol.NewPattern(min(job.Request, 64<<10)),
		allSet: make(chan struct{}), loops: map[gnet.EventLoop]*loop{}, members: make([]*member, job.Connections),
	}
	for i := range p.members {
		p.members[i] = &member{number: i, seed: byte(i * 7 % protocol.Period)} // neighbours differ
	}
	p.unset.Store(int64(len(p.members)))
	return p
}

// SetUp opens the connections, and returns when each has had a reply or has failed. An error means
// that there can be none, or that ctx has ended.
func (p *connections) SetUp(ctx context.Context) error {
	client, err := gnet.NewClient(p, gnet.WithMulticore(p.job.Threads > 1), gnet.WithNumEventLoop(p.job.Threads),
		gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogger(zap.NewNop().Sugar()))
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	p.client = client
	limit, cancel := context.WithTimeoutCause(ctx, worker.SetUpLimit, fmt.Errorf("no reply, %v after the first connection was opened", worker.SetUpLimit))
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

// open opens the connections. It returns when each is open or has failed, or ctx has ended.
func (p *connections) open(ctx context.Context) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAlive: -1}
	var opening errgroup.Group
	opening.SetLimit(dialers)
	for _, m := range p.members {
		if ctx.Err() != nil {
			break
		}
		opening.Go(func() error {
			c, err := dial(ctx, &dialer, p.job.Address)
			if err == nil {
				_, err = p.client.EnrollContext(c, m)
			}
			if err != nil && ctx.Err() == nil {
				p.lose(m, err)
			}
			return nil
		})
	}
	_ = opening.Wait() // always nil
}

// markSet notes that the member is established, or has failed.
func (p *connections) markSet(m *member) {
	if m.set.CompareAndSwap(false, true) && p.unset.Add(-1) == 0 {
		close(p.allSet)
	}
}

// lose counts a connection as failed, once.
func (p *connections) lose(m *member, err error) {
	if m.failed.CompareAndSwap(false, true) {
		p.faults.Note(err)
	}
	p.markSet(m)
}

// loopOf returns our part of one of gnet's loops.
func (p *connections) loopOf(events gnet.EventLoop) *loop {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loops[events]
	if l == nil {
		l = &loop{worker.NewTally(), make([]byte, p.job.Request)}
		p.loops[events] = l
	}
	return l
}

// OnOpen sends the first request.
func (p *connections) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	m := c.Context().(*member)
	m.loop = p.loopOf(c.EventLoop())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn = c
	now := p.clock.Now()
	p.send(m, now, now, m.loop.request)
	return nil, gnet.None
}

// send sends a request now, whose latency begins at first. It is built in scratch. The member is
// locked, open, and has no request outstanding.
//
// send writes to the socket itself, from any goroutine: letting the loop do it would wake the loop
// once more for each request of the open loop. gnet closes no descriptor before OnClose has
// returned, and OnClose takes the lock.
func (p *connections) send(m *member, first, now time.Duration, scratch []byte) {
	m.first, m.wrote, m.left = first, now, p.job.Reply
	m.seed = byte((int(m.seed) + 1) % protocol.Period)
	protocol.Request{Length: p.job.Request, Reply: p.job.Reply, Seed: m.seed}.Put(scratch, p.payload)
	n, err := unix.Write(m.conn.Fd(), scratch)
	if err != nil && err != unix.EAGAIN {
		return // the loop sees it too, and OnClose gets the error
	}
	if rest := scratch[max(n, 0):]; len(rest) > 0 {
		_ = m.conn.AsyncWrite(bytes.Clone(rest), nil) // on error as above
	}
}

// sendAll sends a request on every connection that is open and free.
func (p *connections) sendAll() {
	scratch := make([]byte, p.job.Request)
	for _, m := range p.members {
		m.mu.Lock()
		if m.conn != nil && m.left == 0 {
			now := p.clock.Now()
			p.send(m, now, now, scratch)
		}
		m.mu.Unlock()
	}
}

// OnTraffic reads what has arrived of a reply.
func (p *connections) OnTraffic(c gnet.Conn) gnet.Action {
	m, ok := c.Context().(*member)
	if !ok {
		return gnet.Close
	}
	data, _ := c.Next(-1) // fails for other arguments only
	if len(data) == 0 {
		return gnet.None
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(data) > m.left || protocol.Check(data, int(m.seed)+p.job.Reply-m.left) != nil {
		p.lose(m, protocol.ErrWrongBytes)
		return gnet.Close
	}
	if m.left -= len(data); m.left > 0 {
		return gnet.None
	}
	if m.failed.Load() {
		return gnet.Close // too late
	}
	if !m.set.Load() {
		p.stood.Add(1)
		p.stall.Reset(p.stallLimit)
		p.markSet(m)
		return gnet.None
	}
	p.replied(m, p.clock.Now())
	return gnet.None
}

// OnClose notes that a connection is lost.
func (p *connections) OnClose(c gnet.Conn, err error) gnet.Action {
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

// stop resets all connections and ends the loops. Nothing may be sent any more. It may be called
// again.
func (p *connections) stop() {
	p.stopOnce.Do(func() {
		p.ending.Store(true)
		if p.client != nil {
			_ = p.client.Stop() // everything has been counted
		}
	})
}

// report stops, and reports what was counted. Connections that have waited longer than patience for
// a reply are errors.
func (p *connections) report(r *worker.Result, patience time.Duration) {
	r.Connections = uint64(p.stood.Load())
	now := p.clock.Now()
	p.stop()
	for _, m := range p.members { // the loops have ended
		if m.left > 0 && now-m.wrote >= patience {
			p.lose(m, fmt.Errorf("connection is dead: no reply for %v", (now-m.wrote).Round(time.Millisecond)))
		}
	}
	p.faults.Report(r)
}

// tallies returns those of all loops, once these have ended.
func (p *connections) tallies() (all []*worker.Tally) {
	for _, l := range p.loops {
		all = append(all, l.tally)
	}
	return all
}
