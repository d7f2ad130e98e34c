package sock

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Error takes the error that waits on the socket (SO_ERROR), or nil.
func Error(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// Unread is the number of bytes that wait to be received, or 0 if the kernel cannot tell.
func Unread(fd int) int { return waiting(fd, unix.TIOCINQ) }

// Unsent is the number of bytes in fd's send buffer: not yet sent, or not yet acknowledged. It is
// 0 if the kernel cannot tell any more.
func Unsent(fd int) int { return waiting(fd, unix.TIOCOUTQ) }

// NotSent is the number of bytes in fd's send buffer that are not yet sent, or 0 if the kernel
// cannot tell any more.
func NotSent(fd int) int { return waiting(fd, unix.SIOCOUTQNSD) }

func waiting(fd int, request uint) int {
	n, err := unix.IoctlGetInt(fd, request)
	if err != nil {
		return 0
	}
	return n
}

// FINReceived reports whether a FIN has come on fd, which may be broken by now, and read to the
// end or not. Events do not tell when a FIN and a reset come between two waits, and reads say 0
// in either case. But TCP_INQ counts a FIN that has come as a byte (tcp_inq_hint in
// include/net/tcp.h; Linux 4.18), and TIOCINQ does not. It allocates.
func FINReceived(fd int) bool {
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
	return int(binary.NativeEndian.Uint32(messages[0].Data)) > Unread(fd)
}

// TCPInfo reads TCP_INFO of fd, as much of it as the kernel has. It is false if there is none.
func TCPInfo(fd int, info *unix.TCPInfo) bool {
	return getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, info)
}

// AppLimited reports that the delivery rate in info is of a flight that had not more to send, and
// says nothing of the path: the bit tcpi_delivery_rate_app_limited, for which TCPInfo has no field.
func AppLimited(info *unix.TCPInfo) bool {
	return (*[8]byte)(unsafe.Pointer(info))[7]&1 != 0
}

// MemInfo is SO_MEMINFO: SK_MEMINFO_VARS of include/uapi/linux/sock_diag.h, in bytes as the kernel
// counts them, with its overhead.
type MemInfo struct {
	Receive, ReceiveBuffer, _ /* transmit */, _ /* sendBuffer */, reserve, send, options, backlog, _ /* drops */ uint32
}

// Memory is what the kernel says of a socket's memory. ok is false if it says nothing.
//
// It is not inlined: in another package the compiler would put m on the heap.
//
//go:noinline
func Memory(fd int) (m MemInfo, ok bool) {
	ok = getsockopt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, &m)
	return m, ok
}

// Queued is what the bytes that wait in the socket take, in both directions.
func (m *MemInfo) Queued() int64 { return int64(m.Receive) + int64(m.send) + int64(m.backlog) }

// All is Queued and what the socket has reserved, or owes (reserve is signed).
func (m *MemInfo) All() int64 {
	return m.Queued() + int64(int32(m.reserve)) + int64(m.options)
}

// getsockopt reads an option that is a structure, as much of it as the kernel has.
func getsockopt[T any](fd, level, name int, value *T) bool {
	size := uint32(unsafe.Sizeof(*value))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(value)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0
}
