package ends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// respite is the pause after a failure, so that a relay that is gone does not make the
// client spin.
const respite = 10 * time.Millisecond

// connector is the worker that opens connections, as many at a time as the job says,
// each for one request. The server closes first, so that TIME_WAIT is its: servers of
// one request per connection do so. A request's latency is from connect to the last
// byte of the reply.
type connector struct {
	job    Job
	clock  clock
	faults faults
	counting

	stopping atomic.Bool
	working  sync.WaitGroup
	cancel   context.CancelFunc // of dialling
	open     []atomic.Pointer[net.TCPConn]
	tallies  []*tally
}

func newConnector(job Job, c clock) *connector {
	return &connector{job: job, clock: c, open: make([]atomic.Pointer[net.TCPConn], job.Connections)}
}

func (c *connector) setUp(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for i := range c.job.Connections {
		t := newTally()
		c.tallies = append(c.tallies, t)
		c.working.Go(func() { c.work(ctx, i, t) })
	}
	return nil
}

// work does one exchange after the other.
func (c *connector) work(ctx context.Context, number int, t *tally) {
	dialer := net.Dialer{KeepAlive: -1}
	header := make([]byte, c.job.Request)
	buf := make([]byte, min(64<<10, c.job.Reply+1))
	for seed := number; !c.stopping.Load(); seed++ {
		r := request{length: c.job.Request, reply: c.job.Reply, seed: byte(seed % period), close: true}
		r.put(header)
		err := c.exchange(ctx, &dialer, number, t, header, int(r.seed), buf)
		if err != nil && !c.stopping.Load() {
			c.faults.note(err)
			_ = c.clock.sleepUntil(ctx, c.clock.now()+respite)
		}
	}
}

// exchange is the life of one connection.
func (c *connector) exchange(ctx context.Context, dialer *net.Dialer, number int, t *tally, request []byte, seed int, buf []byte) error {
	began := c.clock.now()
	deadline := c.clock.base.Add(began + replyLimit)
	dialer.Deadline = deadline
	conn, err := dial(ctx, dialer, c.job.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.has(c.clock.now()) {
		t.connections++
	}
	conn.SetDeadline(deadline)
	c.open[number].Store(conn)
	defer c.open[number].Store(nil)
	if c.stopping.Load() { // and nobody may have seen it there
		return net.ErrClosed
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	got := 0
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if got+n > c.job.Reply || checkPattern(buf[:n], seed+got) != nil {
				return errWrongBytes
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
	c.replied(t, began, c.clock.now())
	return nil
}

func (c *connector) begin(w Window) { c.counting.begin(c.clock.span(w)) }

func (c *connector) finish(_ context.Context, r *Result) {
	c.close()
	merge(c.tallies, r)
	for _, t := range c.tallies {
		r.Connections += t.connections
	}
	c.faults.tell(r)
	silence(r)
}

func (c *connector) close() {
	c.stopping.Store(true)
	if c.cancel != nil {
		c.cancel()
	}
	for i := range c.open {
		if conn := c.open[i].Load(); conn != nil {
			conn.SetLinger(0)
			conn.SetDeadline(time.Unix(1, 0)) // ends what it waits for
		}
	}
	c.working.Wait()
}
