package engine

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
)

// The relay does not allocate the kernel's memory for a pair, but it decides how much that can
// become. Left alone, a source's receive buffer and a sink's send buffer grow to megabytes
// within milliseconds (up to tcp_rmem[2] and tcp_wmem[2]). When the reader stops, both fill up.
// The source sends all that it was promised room for, and a promise cannot be taken back. So
// the limit must stand before the reader stops.
//
// Every direction that carries more than a message or two has a ceiling: level 0. As long as it
// moves, each tick measures what it needs: what passes in 5/4 of the source's least round trip
// and in needMicros.
//
//	none yet --> level 0 <--> level 1 <--> noCeiling
//	      16 KiB at a time,
//	      or 32 KiB of a run
//
//	up:       the mean need of three ticks is more than the level's
//	to the    the round trip alone needs more than level 0 has, or the direction is
//	  last:   moderated
//	down:     the mean is less than the level's for calmAfter ticks
//
// A ceiling is the size of the source's receive buffer, unless the source is far, and how much may
// wait unsent in the sink (TCP_NOTSENT_LOWAT). What the sink has under way is not limited. The
// throttle goes below the ceiling, and comes back to level 0. A direction that moves nothing is not
// looked at.
//
// The kernel does not tune a receive buffer whose size was set. When segments come alone that
// used to come many at once, it may have promised some kilobytes more than fit, and drops the
// last ones. That happens only while the direction stalls. The throttle, which comes two ticks
// later, lets the kernel enlarge the buffer again, before the source sends them a second time.

const (
	// ceilingBuffer and ceilingUnsent are the receive buffer's size and the unsent bytes at
	// level 0; both double with each level. ceilingNeed is the most that fits level 0, and at
	// most half of the window that such a buffer makes.
	ceilingBuffer = 384 << 10
	ceilingUnsent = 256 << 10
	ceilingNeed   = 128 << 10
	// noCeiling is the level at which the kernel alone decides.
	noCeiling = 2
	// needMicros is for how long the window must last beside the round trip: on a busy machine
	// the relay comes that late.
	needMicros = 10_000
	// farMicros is the least round trip of a source whose window is left alone. In slow start its
	// window doubles with each round trip, and a tick is too late to let it: 4 MB over 20 ms took
	// 1.30 times as long with a ceiling, 1 MB over 50 ms 1.13 times. At 2 ms the window of level 0
	// is 0.8 Gbit/s. What a far source is promised grows with what is read in a round trip, so it
	// is not much when a reader stops early.
	farMicros = 2_000
)

// meter is a direction that moved a lot of late.
type meter struct {
	reference
	side  side
	level uint8
	soft  bool // the buffer could not be made so small yet
	next  uint8
	calm  int8     // ticks in which it needed less than it has
	since uint32   // milliseconds since the loop's start
	bytes uint64   // delivered by then
	needs [3]int64 // in bytes, of the last ticks
}

// levelFor is the level that a need calls for.
func levelFor(need int64) (level uint8) {
	for level < noCeiling && need > ceilingNeed<<level {
		level++
	}
	return level
}

// beginMeter gives a direction the lowest ceiling, and has its rate looked at with each tick.
func (l *loop) beginMeter(p *pair, s side) {
	if l.engine.options.NoFlowControl {
		return
	}
	l.meters = append(l.meters, meter{
		reference: reference{p.slot, p.generation}, side: s, since: l.millis(), bytes: p.dir[s].Bytes,
		soft: !l.setCeiling(p, s, 0),
	})
	p.dir[s].Set(pump.Metered)
}

// measure sets the ceilings of the directions that move, once per tick.
func (l *loop) measure() {
	now := l.millis()
	keep := l.meters[:0]
	for _, m := range l.meters {
		p := l.find(m.reference)
		if p == nil {
			continue
		}
		if p.state == stateOpen && now-m.since >= sampleMillis && !l.remeasure(p, &m, now) {
			p.dir[m.side].Clear(pump.Metered)
			continue
		}
		keep = append(keep, m)
	}
	l.meters = keep
}

// remeasure decides on the ceiling of a direction; false: it has the lowest, and needs no more.
func (l *loop) remeasure(p *pair, m *meter, now uint32) bool {
	d := &p.dir[m.side]
	rate := int64(d.Bytes-m.bytes) * 1000 / int64(now-m.since)
	m.since, m.bytes = now, d.Bytes
	far := int64(0)
	if rate > 0 && l.tcpInfo(int(p.fd[m.side])) {
		far = rate * int64(l.tcp.Min_rtt) * 5 / 4 / 1e6
	}
	m.needs[m.next%uint8(len(m.needs))] = far + rate*needMicros/1e6
	m.next++
	sum := int64(0)
	for _, need := range m.needs {
		sum += need
	}
	want := levelFor(sum / int64(len(m.needs)))
	switch {
	case d.Is(pump.Moderated): // see beginModeration
		m.level, want = noCeiling, noCeiling
	case d.Is(pump.Throttled): // see lift
		m.level, want = 0, 0
	case far > ceilingNeed:
		want = noCeiling
	}
	if want >= m.level && want > 0 {
		m.calm = 0
	} else {
		m.calm++
	}
	switch {
	case want > m.level && !d.Is(pump.Stalled): // else it is the sink that holds it up
		l.ceiling(p, m, want)
	case want < m.level && m.calm >= calmAfter:
		l.ceiling(p, m, want)
		m.calm = 0
	case m.soft && !d.Is(pump.Throttled):
		l.ceiling(p, m, m.level)
	}
	return m.level > 0 || m.calm < calmAfter
}

// ceiling brings the direction to a level.
func (l *loop) ceiling(p *pair, m *meter, level uint8) {
	m.level, m.soft = level, false
	if level == noCeiling {
		l.removeCeiling(p, m.side)
	} else {
		m.soft = !l.setCeiling(p, m.side, level)
	}
}

// setCeiling limits what the kernel may come to hold for a direction. False: not all of it could
// be set yet. The source was promised more, of which nothing may be dropped, so only the next
// promises are smaller; or the source seems to be far, which a later sample of its round trip may
// correct.
func (l *loop) setCeiling(p *pair, s side, level uint8) bool {
	source, sink := int(p.fd[s]), int(p.fd[s.other()])
	setNotsentLowat(sink, ceilingUnsent<<level)
	size := int64(ceilingBuffer << level)
	if l.mostTuned() <= size {
		return true // the kernel makes it no larger
	}
	if l.isFar(source) {
		return false
	}
	if p.dir[s].Bytes < ceilingBuffer/4 {
		// The kernel promises more with every segment, but cannot have promised much yet: so
		// first the limit, and then the questions.
		fixReceiveBuffer(source, size/2)
	}
	used, full, ok := receiveMemory(source)
	if !ok || !l.tcpInfo(source) {
		return true // it is broken; its own event tells of that
	}
	room := used + int64(l.tcp.Rcv_wnd)*4/3 // with the kernel's overhead
	if l.tcp.Rcv_wnd == 0 && used >= full {
		room = size // it is full, and nothing is promised: the window opens when it fits
	}
	fixReceiveBuffer(source, max(size, room)/2)
	if room > size {
		setTCP(source, unix.TCP_WINDOW_CLAMP, size/2)
		return false
	}
	setTCP(source, unix.TCP_WINDOW_CLAMP, noWindowClamp)
	return true
}

// backToCeiling ends what the throttle has set of the direction's buffers.
func (l *loop) backToCeiling(p *pair, s side) {
	if source := int(p.fd[s]); l.mostTuned() <= ceilingBuffer || l.isFar(source) {
		l.freeWindow(source) // which setCeiling leaves alone
	}
	l.setCeiling(p, s, 0)
}

// isFar reports whether the source is so far away that its window is left alone.
func (l *loop) isFar(source int) bool { return l.tcpInfo(source) && l.tcp.Min_rtt >= farMicros }

// removeCeiling leaves the direction's buffers to the kernel.
func (l *loop) removeCeiling(p *pair, s side) {
	setNotsentLowat(int(p.fd[s.other()]), 0) // 0: what the sysctl says
	if l.mostTuned() > ceilingBuffer {
		l.freeWindow(int(p.fd[s]))
	}
}

// mostTuned is the largest receive buffer that the kernel makes by itself: net.ipv4.tcp_rmem[2]
// of the loop's network namespace.
func (l *loop) mostTuned() int64 {
	if l.tuned > 0 {
		return l.tuned
	}
	l.tuned = 6 << 20 // the default of most machines
	text, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_rmem")
	if f := strings.Fields(string(text)); len(f) == 3 {
		if n, err := strconv.ParseInt(f[2], 10, 64); err == nil {
			l.tuned = n
		}
	}
	return l.tuned
}
