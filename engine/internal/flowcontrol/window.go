package flowcontrol

import "golang.org/x/sys/unix"

// Two things bound the window of a source. TCP_WINDOW_CLAMP bounds what is offered at a time.
// The receive buffer bounds what may wait unread. (SO_RCVBUF sets twice what it is given, and
// half of that is the window.)
//
// The clamp never stops a source. It also sets the kernel's rcv_ssthresh, which bounds the
// window and which only arriving data raises again. A window that was clamped to less than a
// segment stays that small after the clamp is lifted, because its sender may send no segment.
// That sender waits for its persist timer, which acknowledgements of bytes in the other
// direction restart. So the clamp is never less than leastWindow segments.
//
// The buffer stops a source. When more waits in it than it may hold, the kernel closes the
// window. It opens the window by itself when the relay has read enough.
//
// A buffer that is smaller than what waits in it and what the source was offered can drop what
// arrives. The source sends that again, maybe after a time-out only. So the buffer shrinks with
// what is held and offered. It is locked only while what is offered fits at twice its size: the
// kernel over-advertises when segments arrive singly, and unlocked it grows instead of
// dropping. The next tick makes it small again. From a fast and near source megabytes arrive
// within a tick, and an unlocked buffer grows by them.

const (
	// leastWindow is the least window of a source, in segments. With two there is always one to
	// acknowledge at once.
	leastWindow = 2
	// restartSegments is with how many segments a sender begins again that was stopped for long
	// (RFC 6928; Linux's default).
	restartSegments = 10
)

// ReceiveBuffer is a sample of the source's receive buffer. Used and Size are as the kernel counts,
// with its overhead.
type ReceiveBuffer struct {
	Used, Size int64
	Unread     int64 // bytes
	Most       int64 // the largest window that a buffer can be set for
}

// Setting is what is to be set of a source's socket.
type Setting struct {
	Buffer int64 // the window for which the receive buffer is set; 0: it stays as it is
	Lock   bool  // the kernel must not enlarge the buffer
	Clamp  int64 // TCP_WINDOW_CLAMP
}

// Window is how the throttle holds the window of a source. At the sink's rate Limits.UnderWay bytes
// are under way: where that is more than a stopped sender begins with, the source is not stopped,
// but goes on at half the rate until what is held has drained.
func Window(source *unix.TCPInfo, b ReceiveBuffer, l Limits) Setting {
	mss := segment(source)
	offered := int64(source.Rcv_wnd) // 0 before Linux 6.2
	room, clamp := l.Window, l.Window
	if b.Unread+offered > l.Window*5/4 {
		coming, gone := offered, min(l.Drained, b.Unread)
		clamp = max(l.Window/4, leastWindow*mss)
		if l.UnderWay > restartSegments*mss {
			clamp = max(clamp, l.UnderWay/2)
			coming, gone = max(offered, l.UnderWay/2), 0
		}
		// The kernel's overhead is as it was for what waits, and as much again at most.
		cost := func(n int64) int64 { return min(max(n*b.Used/max(b.Unread, 1), n), 2*n) }
		room = max(min((b.Used+cost(coming)*9/8-cost(gone))/2, b.Size/2), l.Window)
	} else if b.Size/2 >= l.Window && b.Size/2 <= l.Window*5/4 {
		room = b.Size / 2
	}
	switch most := min(room, b.Most); {
	case l.Window > b.Most:
		return Setting{Clamp: clamp}
	case l.Lock && b.Used+2*offered <= 2*most:
		return Setting{Buffer: most, Lock: true, Clamp: clamp}
	case room != b.Size/2:
		return Setting{Buffer: most, Clamp: clamp}
	}
	return Setting{Clamp: clamp}
}

// TunedWindow is the window for which the receive buffer is to be set when it is left to the kernel
// again; 0: it is large enough. It is what the kernel's tuning had made of it, as that enlarges a
// buffer only when the source brings more in a round trip than ever before.
func TunedWindow(source *unix.TCPInfo, b ReceiveBuffer) int64 {
	// As in tcp_rcv_space_adjust.
	tuned := min(2*int64(source.Rcv_space)+16*int64(source.Advmss), b.Most)
	if tuned > b.Size/2 {
		return tuned
	}
	return 0
}
