package sock

import "golang.org/x/sys/unix"

// DelayACK has the kernel acknowledge what comes on a TCP connection together with what is sent
// on it, or after 40 ms and more, until it finds otherwise by itself (TCP_QUICKACK 0, see tcp(7)).
func DelayACK(fd int) { quickACK(fd, 0) }

// QuickACK has the kernel acknowledge at once, until it finds otherwise.
func QuickACK(fd int) { quickACK(fd, 1) }

// quickACK sets an option that is a hint, on a connection that may have failed meanwhile.
func quickACK(fd, value int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, value)
}
