package bottleneck

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// send sends blocks as fast as the connection takes them, until a deadline interrupts it. A
// block is stamped when the socket takes its first bytes, so that the time it waited for
// room before that, in this process, does not count.
func send(conn *net.TCPConn, c clock, counts *counts, unsent int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if unsent > 0 {
		// What waits in the sender's own kernel is neither the path's nor the relay's.
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
