package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
)

// streams are connections to the stream server, each with a goroutine: kinds Bulk and Slow.
type streams struct {
	job     worker.Job
	faults  worker.Faults
	payload protocol.Pattern
	counter worker.Counter

	conns   []net.Conn      // those that were established
	ctx     context.Context // ends when they are to end
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func newStreams(job worker.Job) *streams {
	s := &streams{job: job, payload: protocol.NewPattern(protocol.BlockSize), counter: worker.Counter{Clock: worker.NewClock()}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// SetUp opens the streams, and starts those that the server has answered.
func (s *streams) SetUp(ctx context.Context) error {
	var opening errgroup.Group
	opening.SetLimit(dialers)
	var mu sync.Mutex
	for i := range s.job.Connections {
		opening.Go(func() error {
			c, err := s.open(ctx, i)
			if err != nil {
				s.faults.Note(err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			s.conns = append(s.conns, c)
			return nil
		})
	}
	_ = opening.Wait() // always nil
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, c := range s.conns {
		s.running.Go(func() {
			err := s.run(c)
			if s.ctx.Err() == nil {
				s.faults.Note(fmt.Errorf("stream lost: %w", err))
				c.Close()
			}
		})
	}
	return nil
}

// open opens a stream, and sends its header.
func (s *streams) open(ctx context.Context, number int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAlive: -1}
	role := uint32(protocol.RoleSink)
	if s.job.Kind == worker.Slow || s.job.Down {
		role = protocol.RoleSource
	}
	if s.job.Kind == worker.Slow {
		dialer.Control = smallReceiveBuffer
	}
	c, err := dial(ctx, &dialer, s.job.StreamAddress())
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	header, answer := make([]byte, protocol.HeaderSize), make([]byte, protocol.HeaderSize)
	protocol.PutStream(header, role, uint32(number))
	c.SetDeadline(time.Now().Add(dialLimit))
	if _, err = c.Write(header); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err == nil && string(header) != string(answer) {
		err = protocol.ErrWrongBytes
	}
	if err != nil {
		protocol.Reset(c)
		return nil, fmt.Errorf("stream: the server's answer: %w", err)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// slowBuffer is the receive buffer of a slow reader, in bytes, as it is asked for; the kernel
// doubles it for its own records. The rest of the stream then waits in the relay and not in the
// reader's kernel. It is set before connect, so that the window is small from the first segment on.
const slowBuffer = 64 << 10

// maxLag is how far a slow reader may lag behind its pace and catch up later.
const maxLag = 100 * time.Millisecond

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
	case s.job.Kind == worker.Slow:
		return s.readSlowly(c)
	case s.job.Down:
		return s.reader(c).ReadAll()
	}
	return protocol.WriteStream(c, s.payload)
}

// reader checks and counts a stream that is read.
func (s *streams) reader(c net.Conn) *protocol.StreamReader {
	return &protocol.StreamReader{Conn: c, Arrived: s.counter.Arrived}
}

// readSlowly takes Pace bytes per second, in small reads at even intervals.
func (s *streams) readSlowly(c net.Conn) error {
	reader, buf := s.reader(c), make([]byte, slowRead(s.job.Pace))
	for next := s.counter.Now(); ; {
		n, err := reader.Read(buf)
		if err != nil {
			return err
		}
		// Late timers are made up for, but not a late sender.
		next = max(next, s.counter.Now()-maxLag) + time.Duration(float64(n)/float64(s.job.Pace)*float64(time.Second))
		if err := s.counter.SleepUntil(s.ctx, next); err != nil {
			return err
		}
	}
}

// slowRead is how much a slow reader takes at a time: 20 ms of its pace, at most 16 KiB.
func slowRead(pace int64) int { return int(min(max(pace/50, 1), 16<<10)) }

func (s *streams) Begin(w worker.Window) { s.counter.Begin(w) }

func (s *streams) Finish(_ context.Context, r *worker.Result) {
	s.Close()
	r.Connections, r.Bytes = uint64(len(s.conns)), s.counter.Bytes()
	s.faults.Report(r)
}

func (s *streams) Close() {
	s.cancel()
	for _, c := range s.conns {
		protocol.Reset(c)
	}
	s.running.Wait()
}
