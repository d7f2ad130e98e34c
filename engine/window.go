package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/flowcontrol"
	"github.com/tprelay/tprelay/internal/sock"
)

// The socket options of flow control. The socket may have broken meanwhile. Its own event tells of
// that, so errors say nothing new here.

const noWindowClamp = 1 << 30 // more than any window

// freeWindow leaves the source's window to the kernel again, at least as large as its tuning had
// made it.
func (l *loop) freeWindow(fd int) {
	if b, ok := l.receiveBuffer(fd); ok && sock.TCPInfo(fd, &l.source) {
		if tuned := flowcontrol.TunedWindow(&l.source, b); tuned > 0 {
			setReceiveBuffer(fd, tuned)
		}
	}
	// Before Linux 5.14 there is no way back, and a large one must do.
	if unlockReceiveBuffer(fd) != nil {
		setReceiveBuffer(fd, 4<<20)
	}
	setTCP(fd, unix.TCP_WINDOW_CLAMP, noWindowClamp)
}

// setReceiveBuffer sets the receive buffer for a window of that many bytes, and lets the kernel
// enlarge it. Without CAP_NET_ADMIN the limit net.core.rmem_max applies.
func setReceiveBuffer(fd int, window int64) {
	lockReceiveBuffer(fd, window)
	_ = unlockReceiveBuffer(fd)
}

// lockReceiveBuffer sets the receive buffer for a window of that many bytes. The kernel does not
// enlarge it.
func lockReceiveBuffer(fd int, window int64) {
	bytes := int(min(window, 1<<30))
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
}

// unlockReceiveBuffer lets the kernel enlarge the receive buffer. It needs Linux 5.14.
func unlockReceiveBuffer(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
}

// receiveBuffer samples the receive buffer, but for the unread bytes. Flow control makes it no
// larger than the kernel's own tuning may.
func (l *loop) receiveBuffer(fd int) (b flowcontrol.ReceiveBuffer, ok bool) {
	m, ok := sock.Memory(fd)
	most := min(l.mostReceiveBuffer(), l.mostTuned()/2)
	return flowcontrol.ReceiveBuffer{Used: int64(m.Receive), Size: int64(m.ReceiveBuffer), Most: most}, ok
}

// mostReceiveBuffer is the largest window that setReceiveBuffer can set a buffer for. It is found
// out late, because a program may give up its privileges after the loop was made.
func (l *loop) mostReceiveBuffer() int64 {
	if l.mostBuffer > 0 {
		return l.mostBuffer
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0 // until there are descriptors again
	}
	defer unix.Close(fd)
	setReceiveBuffer(fd, 1<<30)
	if m, ok := sock.Memory(fd); ok {
		l.mostBuffer = int64(m.ReceiveBuffer) / 2
	}
	return l.mostBuffer
}

// setNotsentLowat has the socket say that it is full when that many bytes wait unsent in it.
func setNotsentLowat(fd int, bytes int64) { setTCP(fd, unix.TCP_NOTSENT_LOWAT, bytes) }

func setTCP(fd, name int, value int64) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, int(min(value, 1<<30)))
}

// tcpInfo reads TCP_INFO of fd into l.tcp.
func (l *loop) tcpInfo(fd int) bool { return sock.TCPInfo(fd, &l.tcp) }
