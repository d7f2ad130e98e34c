package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// What the throttle sets of a socket. The socket may have broken meanwhile: its own event
// tells of that, so errors say nothing new here.
//
// Two things hold a window. TCP_WINDOW_CLAMP bounds what is offered at a time. The receive
// buffer bounds what may wait unread (SO_RCVBUF, which sets twice what it is given, so that
// half of it is the window).
//
// The clamp never stops a source. It also sets the kernel's rcv_ssthresh, which bounds the
// window and which only data raises again: a window that was clamped to less than a segment
// stays so small after the clamp is lifted, as its sender may send no segment. That sender
// waits for its persist timer, which acknowledgements of bytes in the other direction start
// anew. So the clamp is never less than leastWindow segments.
//
// The buffer stops a source. When more waits in it than it may hold, the kernel closes the
// window. It opens the window again, by itself, when the relay has read enough.
//
// A buffer that is smaller than what waits in it and what the source was promised room for can drop
// what comes, and that is sent again, maybe after a time-out only. So the buffer shrinks with what
// is held and promised. It is locked only while what is promised fits at twice its size: the kernel
// over-advertises when segments arrive singly, and unlocked it grows instead of dropping. The next
// tick makes it small again. From a fast and near source megabytes come within a tick, by which an
// unlocked buffer grows.

const (
	noWindowClamp = 1 << 30 // more than any window
	// leastWindow is the least window of a source, in segments. With two there is always one
	// to acknowledge at once.
	leastWindow = 2
	// restartSegments is with how many a sender begins again that was stopped for long
	// (RFC 6928; Linux's default).
	restartSegments = 10
)

// holdWindow has the source offer its other end a window of so many bytes, now or with the
// next calls. Until the next call the relay reads as many as drained. When all is well so many
// are under way: where that is more than a stopped sender begins with, the source is not
// stopped, but goes on at half the rate until what is held has drained. The kernel may make the
// buffer larger, unless locked and what is promised fits at twice its size. Invariant: l.tcp is the
// source's.
func (l *loop) holdWindow(fd int, window, underway, drained int64, locked bool) {
	used, size, ok := receiveMemory(fd)
	if !ok {
		return
	}
	mss := int64(max(l.tcp.Advmss, l.tcp.Rcv_mss))
	unread, promised := int64(sock.Unread(fd)), int64(l.tcp.Rcv_wnd) // promised: 0 before Linux 6.2
	room, clamp := window, window
	if unread+promised > window*5/4 {
		coming, gone := promised, min(drained, unread)
		clamp = max(window/4, leastWindow*mss)
		if underway > restartSegments*mss {
			clamp = max(clamp, underway/2)
			coming, gone = max(promised, underway/2), 0
		}
		// The kernel's overhead is as it was for what waits, and as much again at most.
		cost := func(n int64) int64 { return min(max(n*used/max(unread, 1), n), 2*n) }
		room = max(min((used+cost(coming)*9/8-cost(gone))/2, size/2), window)
	} else if size/2 >= window && size/2 <= window*5/4 {
		room = size / 2
	}
	switch most := l.mostReceiveBuffer(); {
	case locked && window <= most && used+2*promised <= 2*min(room, most):
		fixReceiveBuffer(fd, min(room, most))
	case window <= most && room != size/2:
		setReceiveBuffer(fd, min(room, most))
	default:
		_ = unlockReceiveBuffer(fd)
	}
	setTCP(fd, unix.TCP_WINDOW_CLAMP, clamp)
}

// freeWindow leaves the window to the kernel again, at least as large as its tuning had made
// it: that makes it larger only when the source has brought more in a round trip than ever
// before.
func (l *loop) freeWindow(fd int) {
	if _, size, ok := receiveMemory(fd); ok && l.tcpInfo(fd) {
		tuned := 2*int64(l.tcp.Rcv_space) + 16*int64(l.tcp.Advmss) // as in tcp_rcv_space_adjust
		if tuned = min(tuned, l.mostReceiveBuffer()); tuned > size/2 {
			setReceiveBuffer(fd, tuned)
		}
	}
	// Before Linux 5.14 there is no way back, and a large one must do.
	if unlockReceiveBuffer(fd) != nil {
		setReceiveBuffer(fd, 4<<20)
	}
	setTCP(fd, unix.TCP_WINDOW_CLAMP, noWindowClamp)
}

// setReceiveBuffer sets the receive buffer's size for a window of so many bytes, and leaves it
// to the kernel to make it larger again. Without CAP_NET_ADMIN the limit net.core.rmem_max
// holds.
func setReceiveBuffer(fd int, window int64) {
	fixReceiveBuffer(fd, window)
	_ = unlockReceiveBuffer(fd)
}

// fixReceiveBuffer is setReceiveBuffer, but the kernel does not make it larger.
func fixReceiveBuffer(fd int, window int64) {
	bytes := int(min(window, 1<<30))
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
}

// unlockReceiveBuffer lets the kernel make it larger. (Linux 5.14.)
func unlockReceiveBuffer(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
}

// receiveMemory is how much of the receive buffer is taken, and its size, both as the kernel
// counts, with its overhead.
func receiveMemory(fd int) (used, size int64, ok bool) {
	m, ok := sock.Memory(fd)
	return int64(m.Receive), int64(m.ReceiveBuffer), ok
}

// mostReceiveBuffer is the largest that setReceiveBuffer can set. It was not known when the
// loop was made: a program may give up its privileges after that.
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
	if _, size, ok := receiveMemory(fd); ok {
		l.mostBuffer = size / 2
	}
	return l.mostBuffer
}

// setNotsentLowat has the socket say that it is full when so many bytes wait unsent in it.
func setNotsentLowat(fd int, bytes int64) { setTCP(fd, unix.TCP_NOTSENT_LOWAT, bytes) }

func setTCP(fd, name int, value int64) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, int(min(value, 1<<30)))
}

// tcpInfo reads TCP_INFO of fd into l.tcp.
func (l *loop) tcpInfo(fd int) bool { return sock.TCPInfo(fd, &l.tcp) }
