package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
)

// retryPause is the pause after a failure, so that the client does not spin when the relay is gone.
const retryPause = 10 * time.Millisecond

// connector opens connections for one request each, as many at a time as the job says. The server
// closes first, and so has the TIME_WAIT state, as servers of one request per connection do. The
// latency of a request is from connect to the last byte of the reply.
type connector struct {
	job     worker.Job
	faults  worker.Faults
	payload protocol.Pattern
	counter worker.Counter

	stopping atomic.Bool
	working  sync.WaitGroup
	cancel   context.CancelFunc // of dialling
	open     []atomic.Pointer[net.TCPConn]
	tallies  []*worker.Tally
}

func newConnector(job worker.Job) *connector {
	return &connector{
		job: job, payload: protocol.NewPattern(min(job.Request, 64<<10)), counter: worker.Counter{Clock: worker.NewClock()},
		open: make([]atomic.Pointer[net.TCPConn], job.Connections),
	}
}

func (c *connector) SetUp(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for i := range c.job.Connections {
		t := worker.NewTally()
		c.tallies = append(c.tallies, t)
		c.working.Go(func() { c.work(ctx, i, t) })
	}
	return nil
}

// work does one exchange after the other.
func (c *connector) work(ctx context.Context, number int, t *worker.Tally) {
	dialer := net.Dialer{KeepAlive: -1}
	header := make([]byte, c.job.Request)
	buf := make([]byte, min(64<<10, c.job.Reply+1))
	for seed := number; !c.stopping.Load(); seed++ {
		r := protocol.Request{Length: c.job.Request, Reply: c.job.Reply, Seed: byte(seed % protocol.Period), Close: true}
		r.Put(header, c.payload)
		err := c.exchange(ctx, &dialer, number, t, header, int(r.Seed), buf)
		if err != nil && !c.stopping.Load() {
			c.faults.Note(err)
			_ = c.counter.SleepUntil(ctx, c.counter.Now()+retryPause)
		}
	}
}

// exchange is the life of one connection.
func (c *connector) exchange(ctx context.Context, dialer *net.Dialer, number int, t *worker.Tally, request []byte, seed int, buf []byte) error {
	began := c.counter.Now()
	deadline := c.counter.At(began + replyLimit)
	dialer.Deadline = deadline
	conn, err := dial(ctx, dialer, c.job.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.counter.Counts() {
		t.Connections++
	}
	conn.SetDeadline(deadline)
	c.open[number].Store(conn)
	defer c.open[number].Store(nil)
	if c.stopping.Load() { // Close may have missed it
		return net.ErrClosed
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	got := 0
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if got+n > c.job.Reply || protocol.Check(buf[:n], seed+got) != nil {
				return protocol.ErrWrongBytes
			}
			got += n
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", got, c.job.Reply, err)
		}
	}
	if got < c.job.Reply {
		return fmt.Errorf("reply of %d bytes ended after %d", c.job.Reply, got)
	}
	c.counter.Replied(t, began, c.counter.Now())
	return nil
}

func (c *connector) Begin(w worker.Window) { c.counter.Begin(w) }

func (c *connector) Finish(_ context.Context, r *worker.Result) {
	c.Close()
	r.Merge(c.tallies)
	for _, t := range c.tallies {
		r.Connections += t.Connections
	}
	c.faults.Report(r)
	r.ExpectRequests()
}

func (c *connector) Close() {
	c.stopping.Store(true)
	if c.cancel != nil {
		c.cancel()
	}
	for i := range c.open {
		if conn := c.open[i].Load(); conn != nil {
			conn.SetLinger(0)
			conn.SetDeadline(time.Unix(1, 0)) // ends its reads and writes
		}
	}
	c.working.Wait()
}
