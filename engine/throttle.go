package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The watermarks bound what the relay holds, but not what the kernel holds for it:
// the source's receive buffer and the sink's send buffer grow to megabytes by
// themselves, and a sender in front of them believes in a rate that is not there
// until they are full. So a direction that keeps stalling is throttled through them.
// Every tick, for as long as it stalls:
//
//	sink:    TCP_NOTSENT_LOWAT = what it delivers in 30 ms
//	relay:   pending bytes at most twice that
//	source:  receive buffer and TCP_WINDOW_CLAMP = twice what the sink delivers in one of
//	         the source's round trips, and 32 KiB
//
// The source may still send twice as fast as the sink delivers, so that the throttle
// follows a link that gets faster; when the sink no longer stalls, all is lifted. A
// path that is fast is left alone: what counts is how long the hidden bytes take, not
// how many they are.

const (
	// throttleAfter is for how many ticks a direction must stall before it is
	// throttled, calmAfter for how many it must not stall before that is lifted.
	throttleAfter = 2
	calmAfter     = 10
	// hiddenMillis is how long the bytes that wait in front of the sink must take for
	// a throttle to begin.
	hiddenMillis = 40
	// lowatMillis is how much the sink keeps unsent: enough that it never runs dry
	// between two turns.
	lowatMillis = 30
	leastLowat  = 8 << 10
	// kernelHides is how much a send buffer that is left alone comes to hold
	// (net.ipv4.tcp_wmem[2] is 4 MiB by default). A sink that delivers this within
	// hiddenMillis has nothing to hide.
	kernelHides = 4 << 20
	windowSpare = 32 << 10
)

// watch is a direction that stalled of late.
type watch struct {
	reference
	side    side
	strikes int8 // ticks with a stall, less those without; bounded
	still   int8 // ticks without a byte delivered
	bytes   uint64
}

// watchStall begins to look at a direction that has stalled.
func (l *loop) watchStall(p *pair, s side) {
	d := &p.dir[s]
	if !d.is(watched) && !l.engine.options.NoFlowControl {
		d.set(watched)
		l.watches = append(l.watches, watch{reference: reference{p.slot, p.generation}, side: s, bytes: d.bytes})
	}
}

// throttle looks at every direction that stalled of late, once per tick.
func (l *loop) throttle() {
	keep := l.watches[:0]
	for _, w := range l.watches {
		if p := l.find(w.reference); p != nil && p.state == stateOpen && l.judge(p, &w) {
			keep = append(keep, w)
		}
	}
	l.watches = keep
}

// judge throttles the direction or lifts that; false: it need not be watched any more.
func (l *loop) judge(p *pair, w *watch) bool {
	d := &p.dir[w.side]
	if d.is(stalled | hasStalled) {
		w.strikes = min(w.strikes+1, calmAfter)
	} else {
		w.strikes--
	}
	d.clear(hasStalled)
	if d.bytes == w.bytes {
		w.still++
	} else {
		w.still, w.bytes = 0, d.bytes
	}
	switch {
	case d.is(eof) || w.still > calmAfter:
		// Nothing more to learn, or nothing moves: its next stall brings it back. A
		// receiver that has stopped must cost nothing.
		d.clear(watched)
		return false
	case w.strikes <= 0:
		if d.is(throttled) {
			l.lift(p, w.side)
		}
		d.clear(watched)
		return false
	case w.strikes >= throttleAfter && w.still == 0:
		l.adjust(p, w.side)
	}
	return true
}

// adjust sets the throttle to what the sink delivers now.
func (l *loop) adjust(p *pair, s side) {
	d := &p.dir[s]
	sink, source := int(p.fd[s.other()]), int(p.fd[s])
	if !l.tcpInfo(sink) {
		return
	}
	rate := int64(l.tcp.Delivery_rate) // bytes per second
	hidden := int64(l.tcp.Notsent_bytes) + int64(d.pending)
	switch {
	case rate == 0:
		return
	case rate*hiddenMillis/1000 >= kernelHides:
		if d.is(throttled) {
			l.lift(p, s)
		}
		return
	case !d.is(throttled) && hidden*1000/rate < hiddenMillis:
		return
	}
	if !l.tcpInfo(source) {
		return
	}
	lowat := max(rate*lowatMillis/1000, leastLowat)
	window := 2*rate*int64(l.tcp.Rtt)/1e6 + windowSpare
	d.set(throttled)
	d.most = uint32(min(2*lowat, int64(l.high)))
	setTCP(sink, unix.TCP_NOTSENT_LOWAT, lowat)
	_ = unix.SetsockoptInt(source, unix.SOL_SOCKET, unix.SO_RCVBUF, int(min(window, 1<<30)))
	setTCP(source, unix.TCP_WINDOW_CLAMP, window)
	l.count.throttles++
}

// lift takes the throttle off, and gives the receive buffer back to the kernel's own
// tuning (SO_BUF_LOCK: Linux 5.14; before that, a large fixed buffer must do).
func (l *loop) lift(p *pair, s side) {
	d := &p.dir[s]
	d.clear(throttled)
	d.most = 0
	sink, source := int(p.fd[s.other()]), int(p.fd[s])
	setTCP(sink, unix.TCP_NOTSENT_LOWAT, 0) // 0: what the sysctl says
	if unix.SetsockoptInt(source, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0) != nil {
		_ = unix.SetsockoptInt(source, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
	}
	setTCP(source, unix.TCP_WINDOW_CLAMP, 1<<30)
}

// setTCP sets a TCP option of a socket that may have broken meanwhile: its own event
// tells of that.
func setTCP(fd, name int, value int64) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, int(min(value, 1<<30)))
}

// tcpInfo reads TCP_INFO of fd into l.tcp, without allocating.
func (l *loop) tcpInfo(fd int) bool {
	size := uint32(unsafe.Sizeof(l.tcp))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&l.tcp)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0
}
