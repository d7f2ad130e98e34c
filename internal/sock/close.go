package sock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// CloseWithFIN closes fd so that its other end gets what is still on its way, and a FIN if it has
// had none. See ConnOptions for what close does otherwise.
func CloseWithFIN(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	unix.Close(fd)
}

// CloseWithRST closes fd so that its other end gets an RST, whatever is still on its way. Where fd
// has duplicates, the RST is sent when the last one is closed; see Disconnect.
func CloseWithRST(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// Disconnect has the kernel send an RST also when fd has duplicates. Their owners then have a
// socket without a connection. It does not close fd.
func Disconnect(fd int) {
	var unspecified unix.RawSockaddrInet4 // connect(2): AF_UNSPEC dissolves the association
	_, _, _ = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unix.SizeofSockaddrInet4)
}
