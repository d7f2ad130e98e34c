package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the throttle sets of a socket. The socket may have broken meanwhile: its own event
// tells of that, so errors say nothing new here.
//
// A window is held by two things. TCP_WINDOW_CLAMP bounds what is offered at a time, the
// receive buffer what may wait unread (SO_RCVBUF, which sets twice what it is given, so that
// half of it is the window). But a buffer that is made smaller than what waits in it and what
// the other end was promised room for drops what comes, and that is sent again, maybe after a
// time-out only. So it gets smaller with what is held and promised, and less or nothing is
// offered meanwhile. Nor is its size ever fixed: what there is room for the kernel guesses by
// segments that came many at once, and so promises more than fits of those that come alone;
// but as long as it may, it makes the buffer larger rather than drop anything, and the next
// tick makes it small again. And it may have to be larger than may be asked for: then it stays
// as it is.

const (
	noWindowClamp    = 1 << 30 // more than any window
	leastWindowClamp = 1       // less than a segment, so that next to nothing more is sent
	// loopbackSegment is less than the segments of loopback, and more than those of other
	// devices. A window of less than a segment is too little there: the kernel would open it by
	// two of what its scale can say, and the sender wait for its persist timer to use that.
	loopbackSegment = 16 << 10
	// restartSegments is with how many a sender begins again that was stopped for long
	// (RFC 6928; Linux's default).
	restartSegments = 10
)

// holdWindow has the source offer its other end a window of so many bytes, now or with the
// next calls; until the next, the relay reads as many as drained. When all is well so many
// are under way: where that is more than a stopped sender begins with, it is not stopped,
// but goes on at half the rate until what is held has drained. Invariant: l.tcp is the
// source's.
func (l *loop) holdWindow(fd int, window, underway, drained int64) {
	used, bytes, ok := receiveMemory(fd)
	if !ok {
		return
	}
	mss := int64(l.tcp.Rcv_mss)
	promised := int64(l.tcp.Rcv_wnd) // 0 before Linux 6.2
	least := int64(leastWindowClamp)
	loopback := mss > loopbackSegment
	switch {
	case loopback:
		least = int64(l.tcp.Advmss)
	case promised < mss && drained > 0:
		promised = 0 // nobody sends less than a segment, but when its persist timer ends
	}
	trickle := int64(0)
	if underway > restartSegments*mss {
		trickle = underway / 2
	}
	unread := int64(unread(fd))
	held := unread + promised
	tooMuch := held > 2*window+drained // a round trip and a tick from now it is that still
	switch size := bytes / 2; {
	case size < window && window <= l.mostReceiveBuffer():
		setReceiveBuffer(fd, window)
	case size <= window*5/4:
		// As small as it is to be.
	case promised+trickle == 0: // nothing can come but less than a segment
		setReceiveBuffer(fd, window)
	case tooMuch && trickle+drained == 0:
		// The sink has stopped. When no more fits than was promised, the kernel closes the window, and
		// nothing comes that would wake us. (A small window would have the source send as much
		// whenever its persist timer ends.)
		cost := min(2*promised, promised*used/max(unread, 1)) // with the kernel's overhead
		room := (used + cost*9/8) / 2
		if room > l.mostReceiveBuffer() {
			l.freeWindow(fd) // it comes to its end, too, only later
			return
		}
		setReceiveBuffer(fd, room)
	default:
		room := max(window, unread+max(promised, trickle))
		switch {
		case room <= min(size, l.mostReceiveBuffer()):
			setReceiveBuffer(fd, room)
		case loopback && used > bytes/16*15: // the kernel closes the window, left alone
			l.freeWindow(fd)
			return
		default:
			_ = unlockReceiveBuffer(fd)
		}
		switch {
		case tooMuch:
			window = max(trickle, least)
		case held > window*5/4:
			window = max(window/4, trickle, 2*mss)
		}
	}
	setTCP(fd, unix.TCP_WINDOW_CLAMP, window)
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
	bytes := int(min(window, 1<<30))
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
	_ = unlockReceiveBuffer(fd)
}

// unlockReceiveBuffer lets the kernel make it larger. (Linux 5.14.)
func unlockReceiveBuffer(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
}

// receiveMemory is how much of the receive buffer is taken, and its size, both as the kernel
// counts, with its overhead.
func receiveMemory(fd int) (used, size int64, ok bool) {
	var info [9]uint32 // SK_MEMINFO_VARS of include/uapi/linux/sock_diag.h: RMEM_ALLOC and RCVBUF come first
	ok = getsockopt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, &info)
	return int64(info[0]), int64(info[1]), ok
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

// enoughUnsent: the sink has as many unsent bytes as the throttle lets it have. The kernel
// says so only when it would begin a new segment, and one that it builds is up to 64 KiB
// long. So it is asked, and to tell when fewer are left.
func (l *loop) enoughUnsent(p *pair, s side) bool {
	sink := int(p.fd[s.other()])
	n, err := unix.IoctlGetInt(sink, unix.SIOCOUTQNSD)
	return err == nil && n >= int(p.dir[s].most) && l.poller.Rearm(sink, p.token(s.other())) == nil
}

// setNotsentLowat has the socket say that it is full when so many bytes wait unsent in it.
func setNotsentLowat(fd int, bytes int64) { setTCP(fd, unix.TCP_NOTSENT_LOWAT, bytes) }

func setTCP(fd, name int, value int64) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, int(min(value, 1<<30)))
}

// tcpInfo reads TCP_INFO of fd into l.tcp, without allocating.
func (l *loop) tcpInfo(fd int) bool { return getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, &l.tcp) }

// getsockopt reads an option that is a structure, as much of it as the kernel has.
func getsockopt[T any](fd, level, name int, value *T) bool {
	size := uint32(unsafe.Sizeof(*value))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(value)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0
}

// appLimited: the delivery rate in l.tcp is of a flight that had not more to send, and says
// nothing of the path: the bit tcpi_delivery_rate_app_limited, for which TCPInfo has no
// field.
func (l *loop) appLimited() bool {
	return (*[8]byte)(unsafe.Pointer(&l.tcp))[7]&1 != 0
}
