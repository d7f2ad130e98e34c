package flowcontrol

import "golang.org/x/sys/unix"

// The relay does not allocate the kernel's memory for a connection, but it decides how large that
// memory can become. Left alone, a source's receive buffer and a sink's send buffer grow to
// megabytes within milliseconds (up to tcp_rmem[2] and tcp_wmem[2]). When the reader stops, both
// fill up: the source sends all that its window allows, and an offered window cannot be taken back.
// So the limit must stand before the reader stops.
//
// Every direction that carries more than a message or two has a ceiling: level 0. As long as it
// moves, each tick measures what it needs: what passes in 5/4 of the source's least round trip and
// in needMicros.
//
//	none yet --> level 0 <--> level 1 <--> NoCeiling
//	      16 KiB at a time,
//	      or 32 KiB of a run
//
//	up:       the mean need of three ticks is more than the level's
//	to the    the round trip alone needs more than level 0 has, or the direction is
//	  last:   moderated
//	down:     the mean is less than the level's for calmTicks ticks
//
// A ceiling bounds the source's receive buffer, unless the source is far, and how much may wait
// unsent in the sink (TCP_NOTSENT_LOWAT). It does not bound what the sink has under way. The
// throttle goes below the ceiling, and comes back to level 0. A direction that moves nothing is not
// measured.
//
// The kernel does not tune a receive buffer whose size was set. When segments arrive singly that
// used to arrive many at once, it may have offered some kilobytes more than fit, and drops the last
// ones. That happens only while the direction stalls. The throttle, which comes two ticks later,
// lets the kernel enlarge the buffer again, before the source sends them a second time.

const (
	// ceilingBuffer and ceilingUnsent are the receive buffer's size and the unsent bytes at
	// level 0. Both double with each level. ceilingNeed is the most that fits level 0, and at
	// most half of the window that such a buffer makes.
	ceilingBuffer = 384 << 10
	ceilingUnsent = 256 << 10
	ceilingNeed   = 128 << 10
	// needMicros is for how long the window must last beside the round trip: on a busy machine the
	// relay comes that late.
	needMicros = 10_000
	// farMicros is the least round trip of a source whose window is left alone. In slow start its
	// window doubles with each round trip, and a tick is too late to let it: 4 MB over 20 ms took
	// 1.30 times as long with a ceiling, 1 MB over 50 ms 1.13 times. At 2 ms the window of level 0
	// is 0.8 Gbit/s. What a far source is offered grows with what is read in a round trip, so it is
	// not much when a reader stops early.
	farMicros = 2_000
)

// Level is how much a direction may fill of the kernel's buffers.
type Level uint8

// NoCeiling is the level at which the kernel alone decides.
const NoCeiling Level = 2

// levelFor is the level that a need calls for.
func levelFor(need int64) (level Level) {
	for level < NoCeiling && need > ceilingNeed<<level {
		level++
	}
	return level
}

// Unsent is how many bytes may wait unsent in the sink; 0: the kernel decides.
func (l Level) Unsent() int64 {
	if l == NoCeiling {
		return 0
	}
	return ceilingUnsent << l
}

// Buffer is the size of the source's receive buffer, as the kernel counts. It has no meaning for
// NoCeiling.
func (l Level) Buffer() int64 { return ceilingBuffer << l }

// Meter is a direction that moved a lot lately, and its level.
type Meter struct {
	level     Level
	partial   bool // the source's buffer could not be made so small yet
	next      uint8
	calm      int8     // ticks in which it needed less than it has
	since     uint32   // time of the last measurement
	delivered uint64   // by then
	needs     [3]int64 // of the last ticks
}

// NewMeter is for a direction that has delivered so many bytes. It begins at level 0.
func NewMeter(delivered uint64, now uint32) Meter { return Meter{since: now, delivered: delivered} }

// Level is the direction's level.
func (m *Meter) Level() Level { return m.level }

// Applied notes whether the level is in force. If not, Measure asks for it again.
func (m *Meter) Applied(whole bool) { m.partial = !whole }

// Due: it is time for Measure.
func (m *Meter) Due(now uint32) bool { return now-m.since >= sampleMillis }

// Moved: something was delivered since the last measurement.
func (m *Meter) Moved(delivered uint64) bool { return delivered != m.delivered }

// Measure decides on the level, once per tick. If apply is true, Level is to be applied. If observe
// is false, the direction is at level 0 and needs no more. The source is nil if nothing has moved.
func (m *Meter) Measure(source *unix.TCPInfo, d State, delivered uint64, now uint32) (apply, observe bool) {
	rate := int64(delivered-m.delivered) * 1000 / int64(now-m.since)
	m.since, m.delivered = now, delivered
	far := int64(0)
	if source != nil {
		far = rate * int64(source.Min_rtt) * 5 / 4 / 1e6
	}
	m.needs[m.next%uint8(len(m.needs))] = far + rate*needMicros/1e6
	m.next++
	sum := int64(0)
	for _, need := range m.needs {
		sum += need
	}
	want := levelFor(sum / int64(len(m.needs)))
	switch {
	case d.Moderated: // moderation has lifted the ceiling
		m.level, want = NoCeiling, NoCeiling
	case d.Throttled: // the end of the throttle goes to level 0
		m.level, want = 0, 0
	case far > ceilingNeed:
		want = NoCeiling
	}
	if want >= m.level && want > 0 {
		m.calm = 0
	} else {
		m.calm++
	}
	switch {
	case want > m.level && !d.Stalled: // otherwise the sink holds it up
		m.level, apply = want, true
	case want < m.level && m.calm >= calmTicks:
		m.level, m.calm, apply = want, 0, true
	case m.partial && !d.Throttled:
		apply = true
	}
	return apply, m.level > 0 || m.calm < calmTicks
}

// Early: so little was delivered that the kernel cannot have offered much yet. It offers more with
// every segment, so the ceiling is set before anything is asked.
func Early(delivered uint64) bool { return delivered < ceilingBuffer/4 }

// Far: the source is so far away that its window is left alone.
func Far(source *unix.TCPInfo) bool { return source.Min_rtt >= farMicros }

// HasCeiling: the source's receive buffer is bounded. It is not if the source is far, or if the
// kernel makes the buffer no larger than level 0 (tuned, net.ipv4.tcp_rmem[2]).
func HasCeiling(source *unix.TCPInfo, tuned int64) bool {
	return !Far(source) && tuned > ceilingBuffer
}

// Ceiling is the size for the source's receive buffer at a level, as the kernel counts, and the
// clamp for its window; 0: no clamp. The buffer is not smaller than what is used and offered,
// because nothing of that may be dropped. In that case the clamp bounds the next offers, and the
// level must be applied again.
func Ceiling(l Level, source *unix.TCPInfo, b ReceiveBuffer) (size, clamp int64) {
	size = l.Buffer()
	room := b.Used + int64(source.Rcv_wnd)*4/3 // with the kernel's overhead
	if full := source.Rcv_wnd == 0 && b.Used >= b.Size; full || room <= size {
		return size, 0 // when it is full, nothing is offered: the window opens again when it fits
	}
	return room, size / 2
}
