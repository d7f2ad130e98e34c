package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrPeerGone is the error when the other end of the link is closed or shut down.
var ErrPeerGone = errors.New("the other side closed the connection")

// Link is one end of the socket between two engines. Its calls wait, SendNow excepted, until either
// end is closed or shut down, or until the context is cancelled. It belongs to one goroutine;
// SendNow may be called from another while that one waits for it.
type Link struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	ctx  context.Context // of Within
}

// NewLink makes a link of a stream socket, which stays the caller's.
func NewLink(conn *net.UnixConn) (*Link, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("hand-over: the connection between the engines: %w", err)
	}
	return &Link{conn, raw, context.Background()}, nil
}

// Within makes waiting calls fail with the cause of ctx when it is cancelled, until release is
// called, once. Both change the deadlines of the connection.
func (k *Link) Within(ctx context.Context) (release func()) {
	k.ctx = ctx
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = k.conn.SetDeadline(time.Unix(1, 0)) // in the past
	})
	return func() {
		if !stop() {
			<-fired
		}
		_ = k.conn.SetDeadline(time.Time{})
		k.ctx = context.Background()
	}
}

// failure is what an error of the connection means.
func (k *Link) failure(what string, err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		err = ErrPeerGone
	case errors.Is(err, os.ErrDeadlineExceeded) && k.ctx.Err() != nil:
		err = context.Cause(k.ctx)
	}
	return fmt.Errorf("hand-over: %s: %w", what, err)
}

// Send sends a frame. The other side gets duplicates of fds.
func (k *Link) Send(kind Kind, head any, fds []int, body ...[]byte) error {
	b, err := encode(kind, head, body...)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for _, part := range append([][]byte{b}, body...) {
		for len(part) > 0 {
			n, _, err := k.conn.WriteMsgUnix(part, rights, nil)
			if err != nil {
				return k.failure("send", err)
			}
			part, rights = part[n:], nil
		}
	}
	return nil
}

// SendPair sends a pair.
func (k *Link) SendPair(p Pair) error {
	for i := range p.Directions {
		p.Directions[i].Pending = len(p.Pending[i])
	}
	return k.Send(KindPair, p.Record, p.FDs, p.Pending[:]...)
}

// SendNow sends a frame without head and body by one sendmsg that does not wait, so that a loop may
// call it. It ignores the context and deadlines. On error nothing was sent.
//
// A write of net.UnixConn would wait while the socket is full, and with it everything else on the
// loop. With a deadline in the past it would not try at all. Control bypasses both.
func (k *Link) SendNow(kind Kind) error {
	b, err := encode(kind, nil)
	if err != nil {
		return err
	}
	outside := k.raw.Control(func(fd uintptr) {
		for {
			// The socket takes a message as short as this one whole, or not at all.
			err = unix.Sendmsg(int(fd), b, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return
			}
		}
	})
	if err = errors.Join(outside, err); err != nil {
		return k.failure("send", err)
	}
	return nil
}

// Receive waits for a frame.
func (k *Link) Receive() (f Frame, err error) {
	if err = k.receive(&f); err != nil {
		f.Close()
		return Frame{}, k.failure("receive", err)
	}
	return f, nil
}

func (k *Link) receive(f *Frame) error {
	header := make([]byte, headerSize)
	for got := 0; got < len(header); {
		n, fds, err := k.read(header[got:])
		f.FDs = append(f.FDs, fds...)
		if err != nil {
			return err
		}
		got += n
	}
	kind, head, body, err := decode(header)
	if err != nil {
		return err
	}
	if len(f.FDs) > maxFDs {
		return fmt.Errorf("frame %q with %d descriptors is too large", byte(kind), len(f.FDs))
	}
	f.Kind = kind
	if f.Head, err = k.readAll(int64(head)); err != nil {
		return err
	}
	f.Body, err = k.readAll(int64(body))
	return err
}

// Expect waits for a frame of that kind.
func (k *Link) Expect(kind Kind) (Frame, error) {
	f, err := k.Receive()
	if err == nil && f.Kind != kind {
		f.Close()
		return Frame{}, fmt.Errorf("hand-over: the other side said %q, not %q", byte(f.Kind), byte(kind))
	}
	return f, err
}

// expectHead waits for a frame of that kind and reads its head into v.
func (k *Link) expectHead(kind Kind, v any) error {
	f, err := k.Expect(kind)
	if err != nil {
		return err
	}
	f.Close()
	return f.parse(v)
}

// readAll reads n bytes, and drops descriptors that come with them: they belong to headers. It does
// not believe n: memory is taken for what came.
func (k *Link) readAll(n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(k.conn, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// read reads some bytes, and the descriptors that came with them.
func (k *Link) read(b []byte) (n int, fds []int, err error) {
	rights := make([]byte, unix.CmsgSpace(4*maxFDs))
	n, size, flags, _, err := k.conn.ReadMsgUnix(b, rights)
	if err != nil {
		return 0, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil {
		return n, nil, err
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return n, fds, err
		}
		fds = append(fds, got...)
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return n, fds, errors.New("descriptors were lost on the way; is the limit for them (ulimit -n) too low?")
	}
	return n, fds, nil
}
