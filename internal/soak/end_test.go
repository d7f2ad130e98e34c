package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What is never right.
var (
	errTruncated = errors.New("clean end before the last byte")
	errCorrupt   = errors.New("not what was sent")
	errHang      = errors.New("nothing moves")
	errNotCut    = errors.New("was not reset")
)

// errNotBegun: a stream could not begin, for a reason of this host alone.
var errNotBegun = errors.New("not begun")

// stall is for how long nothing may move in a stream. No fault lasts half as long.
const stall = time.Minute

// pieceSize is how much an end writes or reads at once.
const pieceSize = 64 << 10

// end is one end of a stream. It is scripted by the plan, with one goroutine that reads
// and one that writes at most.
type end struct {
	*stream
	name string
	conn *net.TCPConn
	ctx  context.Context

	out     content
	sent    int64
	in      checker
	due     int64 // bytes that must have come before what is asked for is complete
	scratch []byte

	writing    atomic.Bool
	sendFailed atomic.Bool
}

func newEnd(ctx context.Context, s *stream, name string, conn net.Conn, out, in content) *end {
	// An RST can be lost. An end that only waits finds out by keep-alive, within half a minute.
	conn.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4})
	// There are no keep-alives while bytes are not acknowledged: the kernel sends these again, and
	// gets no answer from a network without a route.
	if raw, err := conn.(*net.TCPConn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((stall * 2 / 3).Milliseconds()))
		})
	}
	return &end{stream: s, name: name, conn: conn.(*net.TCPConn), ctx: ctx, out: out, in: checker{want: in}}
}

func (e *end) String() string {
	return fmt.Sprintf("%s (sent %d, received %d of %d)", e.name, e.sent, e.in.at, e.due)
}

// send sends the next n bytes, or a few more: see whole.
func (e *end) send(n int64) error {
	buf := make([]byte, min(n+int64(len(replaced)), pieceSize))
	for to := whole(e.sent + n); e.sent < to; {
		piece := buf[:min(int64(len(buf)), to-e.sent)]
		e.out.fill(piece, e.sent)
		if err := e.write(piece); err != nil {
			return err
		}
	}
	return nil
}

func (e *end) write(piece []byte) error {
	return e.writeBy(func() error {
		n, err := e.conn.Write(piece)
		e.sent += int64(n)
		return err
	})
}

// sendHeader names the stream.
func (e *end) sendHeader() error {
	return e.writeBy(func() error {
		_, err := e.conn.Write(e.header())
		return err
	})
}

// writeBy notes what a writing function does.
func (e *end) writeBy(write func() error) error {
	e.writing.Store(true)
	e.conn.SetWriteDeadline(time.Now().Add(stall))
	err := write()
	if err != nil {
		e.sendFailed.Store(true)
	}
	e.writing.Store(false)
	return e.explain(err)
}

// sendUrgent sends the next byte as urgent data.
func (e *end) sendUrgent() error {
	var b [1]byte
	e.out.fill(b[:], e.sent)
	raw, err := e.conn.SyscallConn()
	if err != nil {
		return err
	}
	return e.writeBy(func() (err error) {
		outside := raw.Write(func(fd uintptr) bool {
			_, err = unix.SendmsgN(int(fd), b[:], nil, nil, unix.MSG_OOB)
			return err != unix.EAGAIN
		})
		if err == nil {
			e.sent++
			err = outside
		}
		return err
	})
}

// receive waits until the next n bytes have come, and checks them.
func (e *end) receive(n int64) error { return e.receiveUpTo(e.due + n) }

// receiveUpTo waits until n bytes have come in all.
func (e *end) receiveUpTo(n int64) error {
	e.due = max(e.due, whole(n))
	for e.in.at < e.due {
		switch err := e.read(e.due - e.in.at); {
		case err == io.EOF:
			return e.early()
		case err != nil:
			return err
		}
	}
	return nil
}

// read takes what has come, but about most bytes. The error is io.EOF at the end.
func (e *end) read(most int64) error {
	if e.scratch == nil {
		e.scratch = make([]byte, pieceSize)
	}
	e.conn.SetReadDeadline(time.Now().Add(stall))
	n, err := e.conn.Read(e.scratch[:min(most, pieceSize)])
	if n > 0 {
		if err := e.in.take(e.scratch[:n]); err != nil {
			return err
		}
	}
	if err == io.EOF {
		return err
	}
	return e.explain(err)
}

// receiveEnd waits for the end of what the other end sends.
func (e *end) receiveEnd() error {
	switch err := e.read(pieceSize); {
	case err == io.EOF:
	case err != nil:
		return err
	}
	if e.in.at > e.due {
		return fmt.Errorf("%w: %d bytes more than were sent", errCorrupt, e.in.at-e.due)
	}
	if e.in.inLabel != 0 {
		return fmt.Errorf("%w: ends within a label", errCorrupt)
	}
	return nil
}

// early is what an end of the stream means before its last byte. A socket tells of a
// reset once; when it was our write that was told, a read says that the stream has ended.
func (e *end) early() error {
	if e.writing.Load() || e.sendFailed.Load() {
		if state, err := e.state(); err != nil || state == tcpClose {
			return unix.ECONNRESET
		}
	}
	return fmt.Errorf("%w: %d bytes missing", errTruncated, e.due-e.in.at)
}

// tcpClose is TCP_CLOSE of the kernel's net/tcp_states.h.
const tcpClose = 7

func (e *end) state() (state uint8, err error) {
	raw, err := e.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	outside := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state, errors.Join(outside, err)
}

func (e *end) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w for %v", errHang, stall)
	}
	return err
}

// finish sends a FIN.
func (e *end) finish() error { return e.conn.CloseWrite() }

// reset closes the connection with an RST.
func (e *end) reset() error {
	e.conn.SetLinger(0)
	return e.conn.Close()
}

// rest waits.
func (e *end) rest(d time.Duration) error { return pause(e.ctx, d) }

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// expectReset is for a connection that nobody may serve.
func (e *end) expectReset() error {
	switch err := e.read(1); {
	case err == nil, errors.Is(err, errCorrupt):
		return fmt.Errorf("%w: something came", errNotCut)
	case err == io.EOF:
		return fmt.Errorf("%w: a clean end", errNotCut)
	default:
		return err
	}
}

// both runs what sends and what receives at the same time. A broken connection ends
// both; what is worse than that ends the other one.
func (e *end) both(send, receive func() error) error {
	var sent error
	var wg sync.WaitGroup
	wg.Go(func() { sent = send() })
	received := receive()
	if isBad(received) {
		e.reset()
	}
	wg.Wait()
	if received != nil {
		return received
	}
	return sent
}

// isBad: something that no fault excuses.
func isBad(err error) bool {
	return errors.Is(err, errTruncated) || errors.Is(err, errCorrupt) || errors.Is(err, errHang) || errors.Is(err, errNotCut)
}

// isCut: the connection was broken, or never made.
func isCut(err error) bool {
	for _, errno := range []error{
		unix.ECONNRESET, unix.EPIPE, unix.ENOTCONN, unix.ETIMEDOUT, unix.ECONNREFUSED, unix.ECONNABORTED,
		unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENETDOWN, context.DeadlineExceeded, os.ErrDeadlineExceeded,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// firstOf runs steps until one fails.
func firstOf(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
