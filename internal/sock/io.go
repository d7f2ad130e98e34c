package sock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls in this file never block, so the Go scheduler need not be told of them. They ask for
// EPIPE instead of SIGPIPE, which would end an embedding process that resets its signal handlers.

// Recv reads up to len(b) bytes. 0 bytes and no error mean that a FIN was read.
func Recv(fd int, b []byte) (int, error) { return recv(fd, b, unix.MSG_DONTWAIT) }

// Peek is Recv that leaves the bytes where they are.
func Peek(fd int, b []byte) (int, error) { return recv(fd, b, unix.MSG_DONTWAIT|unix.MSG_PEEK) }

func recv(fd int, b []byte, flags uintptr) (int, error) {
	return transfer(unix.SYS_RECVFROM, fd, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), flags)
}

// Send writes up to len(b) bytes. More says that others follow at once (MSG_MORE).
func Send(fd int, b []byte, more bool) (int, error) {
	flags := uintptr(unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	return transfer(unix.SYS_SENDTO, fd, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), flags)
}

// SendVector is Send for bytes that lie in several places.
func SendVector(fd int, v []unix.Iovec) (int, error) {
	m := unix.Msghdr{Iov: unsafe.SliceData(v)}
	m.SetIovlen(len(v))
	return transfer(unix.SYS_SENDMSG, fd, unsafe.Pointer(&m), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0)
}

// transfer makes a system call that moves bytes, and repeats it when a signal interrupts it.
func transfer(call uintptr, fd int, p unsafe.Pointer, a, b uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(p), a, b, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
