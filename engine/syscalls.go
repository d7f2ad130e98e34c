package engine

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recv and send never block, so that the Go scheduler need not be told; send
// asks for EPIPE instead of SIGPIPE, which would end an embedding process that
// resets its signal handlers. Errors are bare unix.Errnos.

func recv(fd int, b []byte) (int, error) { return recvWith(fd, b, unix.MSG_DONTWAIT) }

// peek is recv that leaves the bytes where they are.
func peek(fd int, b []byte) (int, error) { return recvWith(fd, b, unix.MSG_DONTWAIT|unix.MSG_PEEK) }

func recvWith(fd int, b []byte, flags uintptr) (int, error) {
	return transfer(unix.SYS_RECVFROM, fd, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), flags)
}

func send(fd int, b []byte, more bool) (int, error) {
	flags := uintptr(unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	return transfer(unix.SYS_SENDTO, fd, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), flags)
}

// sendVector is send for bytes that lie in several places.
func sendVector(fd int, v []unix.Iovec) (int, error) {
	m := unix.Msghdr{Iov: unsafe.SliceData(v)}
	m.SetIovlen(len(v))
	return transfer(unix.SYS_SENDMSG, fd, unsafe.Pointer(&m), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0)
}

// transfer makes a system call that moves bytes, until no signal interrupts it.
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

// socketError takes the error that waits on the socket.
func socketError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// unread is the number of bytes that wait to be received, or 0.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// unsent is the number of bytes in fd's send buffer: not yet sent, or not yet
// acknowledged. 0 if nobody can tell any more.
func unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// finReceived reports whether a FIN has come on fd, which may be broken by now, and read to the
// end or not. Events do not tell when a FIN and a reset come between two waits, and reads say 0
// in either case. But TCP_INQ counts a FIN that has come as a byte (tcp_inq_hint in
// include/net/tcp.h; Linux 4.18), and TIOCINQ does not.
func finReceived(fd int) bool {
	if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_INQ, 1) != nil {
		return false
	}
	defer unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_INQ, 0)
	control := make([]byte, unix.CmsgSpace(4))
	_, size, _, _, err := unix.Recvmsg(fd, make([]byte, 1), control, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return false
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) != 1 || len(messages[0].Data) < 4 {
		return false
	}
	return int(binary.NativeEndian.Uint32(messages[0].Data)) > unread(fd)
}

// finish closes fd so that its other end gets what is still on its way, and a FIN if it has
// had none. See tproxy.ConnOptions for what close does otherwise.
func finish(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	unix.Close(fd)
}

// disconnect has the kernel send an RST also when fd has duplicates, whose owners then have a
// socket without a connection.
func disconnect(fd int) {
	var unspecified unix.RawSockaddrInet4 // connect(2): AF_UNSPEC dissolves the association
	_, _, _ = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unix.SizeofSockaddrInet4)
}

// reset closes fd so that its other end gets an RST, whatever is still on its way.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}
