package bottleneck

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// send sends blocks as fast as the connection takes them, until it is broken off by
// a deadline. A block is stamped when the socket takes the first of it, so that the time
// it waited for room before does not count: that is the sender's own.
func send(conn *net.TCPConn, c clock, counts *counts, unsent int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if unsent > 0 {
		// What the sender's own kernel hoards is neither the path's nor the relay's.
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
		})
		if err = errors.Join(err, failed); err != nil {
			return fmt.Errorf("TCP_NOTSENT_LOWAT: %w", err)
		}
	}
	block := make([]byte, blockSize)
	at := blockSize // in the block
	number := uint64(0)
	for {
		var failed error
		err := raw.Write(func(fd uintptr) (done bool) {
			if at == blockSize {
				stamp(block, number, c.now())
			}
			n, err := unix.Write(int(fd), block[at%blockSize:])
			if err != nil {
				failed = err
				return !errors.Is(err, unix.EAGAIN)
			}
			if at == blockSize {
				at, number = 0, number+1
			}
			at += n
			counts.sent.Add(int64(n))
			failed = nil
			return true
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case failed != nil && !errors.Is(failed, unix.EINTR):
			return os.NewSyscallError("write", failed)
		}
	}
}

// broken says that a connection ended before its time.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the connection was closed")
	}
	return fmt.Errorf("broken off: %w", err)
}

// closed: err comes of the end that we made of it ourselves.
func closed(err error) bool {
	return err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}
