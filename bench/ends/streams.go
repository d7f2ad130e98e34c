package ends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// streams is the worker of bulk and of slow: streams to the bulk server, each with a
// goroutine.
type streams struct {
	job    Job
	clock  clock
	faults faults
	bytes  pattern // to be sent
	counting

	stood   uint64
	conns   []net.Conn
	ctx     context.Context // ends when they are to
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func newStreams(job Job, c clock) *streams {
	s := &streams{job: job, clock: c, bytes: newPattern(blockSize)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// setUp opens the streams, and starts those that stand: the server has answered.
func (s *streams) setUp(ctx context.Context) error {
	opened := make([]net.Conn, s.job.Connections)
	numbers := make(chan int)
	var opening sync.WaitGroup
	for range min(dialers, len(opened)) {
		opening.Go(func() {
			for i := range numbers {
				c, err := s.open(ctx, i)
				if err != nil {
					s.faults.note(err)
					continue
				}
				opened[i] = c
			}
		})
	}
	for i := range opened {
		numbers <- i
	}
	close(numbers)
	opening.Wait()
	for _, c := range opened {
		if c != nil {
			s.stood++
			s.conns = append(s.conns, c)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, c := range s.conns {
		s.running.Go(func() {
			err := s.run(c)
			if s.ctx.Err() == nil {
				s.faults.note(fmt.Errorf("stream lost: %w", err))
				c.Close()
			}
		})
	}
	return nil
}

// open opens a stream and says what it is for.
func (s *streams) open(ctx context.Context, number int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAlive: -1}
	role := uint32(roleSink)
	if s.job.Kind == Slow || s.job.Down {
		role = roleSource
	}
	if s.job.Kind == Slow {
		dialer.Control = smallReceiveBuffer
	}
	c, err := dial(ctx, &dialer, s.job.bulkAddress())
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	header, answer := make([]byte, headerSize), make([]byte, headerSize)
	putStream(header, role, uint32(number))
	c.SetDeadline(time.Now().Add(dialLimit))
	if _, err = c.Write(header); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err == nil && string(header) != string(answer) {
		err = errWrongBytes
	}
	if err != nil {
		discard(c)
		return nil, fmt.Errorf("stream: the server's answer: %w", err)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// slowBuffer is the receive buffer of a slow reader, in bytes, as it is asked for; the
// kernel takes twice that, for its own records. What the relay sends beyond it has to
// wait in the relay, and not in the reader's kernel. It is set before connect, so that
// the window is small from the first.
const slowBuffer = 64 << 10

// mostLate is how late a slow reader may be and read faster for a while.
const mostLate = 100 * time.Millisecond

func smallReceiveBuffer(_, _ string, raw syscall.RawConn) error {
	var err error
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, slowBuffer)
	})
	return errors.Join(ctl, err)
}

// run reads or writes until the stream ends.
func (s *streams) run(c net.Conn) error {
	switch {
	case s.job.Kind == Slow:
		return s.readSlowly(c)
	case s.job.Down:
		return readStream(c, make([]byte, blockSize), s.came)
	}
	return writeStream(c, s.bytes)
}

// readSlowly takes Pace bytes per second, in small reads at even intervals.
func (s *streams) readSlowly(c net.Conn) error {
	buf := make([]byte, slowRead(s.job.Pace))
	next := s.clock.now()
	for at := 0; ; {
		n, err := c.Read(buf)
		if n > 0 {
			s.came(n)
			if err := checkPattern(buf[:n], at); err != nil {
				return err
			}
			at = (at + n) % period
		}
		if err != nil {
			return err
		}
		// What a timer is late is made up for, but not what the sender is.
		next = max(next, s.clock.now()-mostLate) + time.Duration(float64(n)/float64(s.job.Pace)*float64(time.Second))
		if err := s.clock.sleepUntil(s.ctx, next); err != nil {
			return err
		}
	}
}

// slowRead is how much a slow reader takes at a time: a fiftieth of a second's worth,
// within reason.
func slowRead(pace int64) int { return int(min(max(pace/50, 1), 16<<10)) }

// came counts bytes that have come.
func (s *streams) came(n int) { s.arrive(s.clock.now(), n) }

func (s *streams) begin(w Window) { s.counting.begin(s.clock.span(w)) }

func (s *streams) finish(_ context.Context, r *Result) {
	s.close()
	r.Connections, r.Bytes = s.stood, s.counting.count.Load()
	s.faults.tell(r)
}

func (s *streams) close() {
	s.cancel()
	for _, c := range s.conns {
		discard(c)
	}
	s.running.Wait()
}
