package engine

import (
	"slices"
	"strconv"
	"strings"
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
// neither less than four segments, and the receive buffer no larger than the kernel's own
// tuning would make it.
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
	// leastSegments is how many segments fit at least: beyond loopback's, which are as
	// large as 64 KiB, this decides nothing.
	leastSegments = 4
	// kernelHides is how much a send buffer that is left alone comes to hold
	// (net.ipv4.tcp_wmem[2] is 4 MiB by default). A sink that delivers this within
	// hiddenMillis has nothing to hide.
	kernelHides = 4 << 20
	windowSpare = 32 << 10
	// usualReceiveMost is Linux's default of what receiveMost reads.
	usualReceiveMost = 6 << 20
)

// watch is a direction that stalled of late.
type watch struct {
	reference
	side    side
	strikes int8  // ticks with a stall, less those without; bounded
	still   int8  // ticks in which the sink's other end acknowledged nothing
	next    uint8 // of rates
	tick    uint32
	acked   uint64   // by the sink's other end, at that tick
	rates   [5]int64 // bytes per second, of late
}

// rate is the best of the last half second. (TCP_INFO's own delivery rate is that of
// single flights: a receiver that opens its window now and then looks fast.)
func (w *watch) rate() int64 { return slices.Max(w.rates[:]) }

// watchStall begins to look at a direction that has stalled.
func (l *loop) watchStall(p *pair, s side) {
	d := &p.dir[s]
	if !d.is(watched) && !l.engine.options.NoFlowControl {
		d.set(watched)
		w := watch{reference: reference{p.slot, p.generation}, side: s, tick: l.tick}
		if l.tcpInfo(int(p.fd[s.other()])) {
			w.acked = l.tcp.Bytes_acked
		}
		l.watches = append(l.watches, w)
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
	if !l.tcpInfo(int(p.fd[w.side.other()])) {
		d.clear(watched)
		return false
	}
	if l.tcp.Bytes_acked == w.acked {
		w.still++
	} else {
		w.still = 0
	}
	if elapsed := int64(l.tick-w.tick) * tickLength.Milliseconds(); elapsed > 0 {
		w.rates[w.next%uint8(len(w.rates))] = int64(l.tcp.Bytes_acked-w.acked) * 1000 / elapsed
		w.next++
		w.tick, w.acked = l.tick, l.tcp.Bytes_acked
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
		l.adjust(p, w.side, w.rate())
	}
	return true
}

// adjust sets the throttle to the rate, in bytes per second, at which the sink
// delivers. Invariant: l.tcp is the sink's.
func (l *loop) adjust(p *pair, s side, rate int64) {
	d := &p.dir[s]
	sink, source := int(p.fd[s.other()]), int(p.fd[s])
	hidden := int64(l.tcp.Notsent_bytes) + int64(d.pending)
	switch {
	case rate*hiddenMillis/1000 >= kernelHides:
		if d.is(throttled) {
			l.lift(p, s)
		}
		return
	case !d.is(throttled) && hidden*1000 < rate*hiddenMillis:
		return
	}
	lowat := max(rate*lowatMillis/1000, leastSegments*int64(l.tcp.Snd_mss))
	if !l.tcpInfo(source) {
		return
	}
	// Less than some segments would have the source wait for acknowledgements that
	// its other end delays.
	window := max(2*rate*int64(l.tcp.Rtt)/1e6+windowSpare, leastSegments*int64(max(l.tcp.Advmss, l.tcp.Rcv_mss)))
	// Not beyond what the kernel's own tuning would come to: a throttle must not cost
	// memory. Half, for SO_RCVBUF sets twice what it is given.
	window = min(window, l.receiveMost/2)
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

// receiveMost is the largest receive buffer to which the kernel tunes a connection by
// itself, in bytes: net.ipv4.tcp_rmem[2], which holds for IPv6 too.
func receiveMost() int64 {
	// Not with package os, which would open Go's own poller: two descriptors.
	fd, err := unix.Open("/proc/sys/net/ipv4/tcp_rmem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return usualReceiveMost
	}
	defer unix.Close(fd)
	text := make([]byte, 100)
	n, _ := unix.Read(fd, text)
	fields := strings.Fields(string(text[:max(n, 0)]))
	if len(fields) != 3 {
		return usualReceiveMost
	}
	most, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || most <= 0 {
		return usualReceiveMost
	}
	return most
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
