package bottleneck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Reader is how the receiver reads. The zero value reads as fast as bytes arrive.
type Reader struct {
	// Pace is how many bytes per second it reads. Default 0: as many as arrive.
	Pace int64
	// Stopped means that it reads nothing.
	Stopped bool
	// From Stop to Resume, counted from the beginning, it reads nothing. Default: it does
	// not stop.
	Stop, Resume time.Duration
}

// readerBuffer is the receive buffer that a slow or stopped reader asks for, in bytes: all
// else has to wait on the path, and not in the reader's kernel.
const readerBuffer = 64 << 10

// mostLate is how much delay of its timer a slow reader makes up for by reading faster.
const mostLate = 100 * time.Millisecond

// prepare sets that buffer on the listener, whose connections inherit it.
func (r Reader) prepare(l *net.TCPListener) error {
	if r == (Reader{}) {
		return nil
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, readerBuffer)
	}); err != nil {
		return err
	}
	return failed
}

// read reads until a deadline interrupts it or ctx ends.
func (r Reader) read(ctx context.Context, conn net.Conn, b *blocks, counts *counts) error {
	if r.Stopped {
		<-ctx.Done()
		return nil
	}
	size := 64 << 10
	if r.Pace > 0 {
		size = int(min(max(r.Pace/50, 1), 16<<10)) // a fiftieth of a second's worth, within reason
	}
	buf := make([]byte, size)
	for next := b.clock.now(); ; {
		if now := b.clock.now(); now >= r.Stop && now < r.Resume && !sleep(ctx, r.Resume-now) {
			return nil
		}
		n, err := conn.Read(buf)
		if n > 0 {
			counts.arrived.Add(int64(n))
			if err := b.take(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return nil // this process ended it
		case errors.Is(err, io.EOF):
			return errors.New("ended early: the connection was closed")
		case err != nil:
			return fmt.Errorf("ended early: %w", err)
		}
		if r.Pace == 0 {
			continue
		}
		// A late timer is made up for, but not a late sender.
		next = max(next, b.clock.now()-mostLate) + time.Duration(float64(n)/float64(r.Pace)*float64(time.Second))
		if !sleep(ctx, next-b.clock.now()) {
			return nil
		}
	}
}

// sleep waits for d, and returns false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
