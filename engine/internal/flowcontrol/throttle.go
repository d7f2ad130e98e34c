// Package flowcontrol decides how much the kernel may hold for one direction of a relayed
// connection. It is policy only: samples of TCP_INFO, times and counts go in, limits come out.
// It has no descriptor and makes no system call; package engine samples and applies.
//
//	throttle.go  which directions are throttled, and to what
//	window.go    how the source's receive buffer and window clamp follow
//	ceiling.go   how much a direction may fill that nothing holds up
//
// A direction reads from its source's socket and writes to its sink's. Every function names the
// one that its TCP_INFO belongs to. Times are milliseconds of one clock, rates are bytes per
// second, and all sizes are bytes. The engine calls Evaluate and Measure once per tick, which
// is 100 ms.
//
// A value of this package is for one goroutine at a time.
package flowcontrol

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// The watermarks bound what the relay holds. They do not bound what the kernel holds for it:
// the source's receive buffer and the sink's send buffer grow to megabytes, and until they are
// full the sender sees a rate that the path does not have. So a direction whose sink falls
// behind is throttled through these buffers. The limits follow the sink's rate with every tick:
//
//	sink:    TCP_NOTSENT_LOWAT = what it delivers in 20 ms
//	relay:   as many pending bytes at most
//	source:  window = what the sink delivers in 5/4 of the source's round trip and 10 ms, and 8 KiB
//
// None is less than four segments. Each tick with a dry sink doubles all three, up to 8 times:
// the link got faster, or a busy machine let the relay wait. A second without halves them.
// Doubling stops at the ceiling that the rate calls for if the source is near. When the sink no
// longer stalls, the limits are lifted. A fast path is left alone: what counts is how long the
// hidden bytes take, not how many they are.
//
// The source may already have sent what its window allowed, so the throttle has to come before
// the kernel's tuning has opened the window far. Two signs start it:
//
//	a queue:  the bytes in front of the sink take too long, and either its round trip has grown or
//	          it sends less than congestion control allows, because its device or its receiver
//	          holds it up. The engine looks for a queue while a run of bytes begins.
//	stalls:   the direction stalled in two ticks: a slow receiver, or losses.
//
// Slow start on a long path also makes bytes wait and the direction stall. It starts no
// throttle: a window that shrank then would be too small when a loss in front of the relay
// needs it.

const (
	// stallTicks is for how many ticks a direction must stall before it is throttled, and calmTicks
	// for how many it must not stall before the throttle is lifted.
	stallTicks = 2
	calmTicks  = 10
	// hiddenMillis is how long the bytes in front of the sink must take for a throttle to begin.
	hiddenMillis = 30
	// queueMicros is how much a queue adds to the sink's round trip.
	queueMicros = 10_000
	// unsentMillis is how much the sink keeps unsent: enough that it does not run dry between two
	// turns of the loop.
	unsentMillis = 20
	// leastSegments is how many segments fit at least. It matters on loopback, whose segments are
	// up to 64 KiB.
	leastSegments = 4
	// kernelHides is how much a send buffer comes to hold when it is left alone: the default of
	// net.ipv4.tcp_wmem[2]. A sink that delivers this within hiddenMillis has nothing to hide.
	kernelHides = 4 << 20
	// windowSpare and windowSpareMicros are what the source's window has beyond its round trip: as
	// much as arrives while the relay does something else.
	windowSpare       = 8 << 10
	windowSpareMicros = 10_000
	// mostSlack is how often the limits can be doubled.
	mostSlack = 3
	// drySpareMicros is what a path has under way beyond its least round trip when it can carry no
	// more.
	drySpareMicros = 5_000
	// sampleMillis is the least time over which a rate is measured. On a long path it is half a
	// round trip, because bytes arrive in bursts there.
	sampleMillis = 50
	// tickMillis is the time between two evaluations.
	tickMillis = 100
)

// Flow is a direction that stalled lately, or is or was throttled.
type Flow struct {
	stallScore    int8     // ticks with a stall, less ticks without; 0 to calmTicks
	idleTicks     int8     // ticks in which nothing arrived at the sink's other end
	ticksSinceDry int8     // ticks without a dry sink, since slack last changed
	slack         uint8    // doublings of the limits
	wasThrottled  bool     // since it is observed
	next          uint32   // of rates
	since         uint32   // time of the last rate
	arrived       int64    // at the sink's other end, at that time
	rates         [5]int64 // the last ones
}

// State is what the engine knows of a direction.
type State struct {
	Pending    uint32 // read from the source and not yet accepted by the sink
	Throttled  bool   // limits are set
	Moderated  bool   // bulk at full speed: the source wakes the loop for a lot only
	Stalled    bool   // it would read now, but for its sink
	HasStalled bool   // it did so since the last evaluation
	EOF        bool   // its source has ended
}

// Verdict is what becomes of a direction.
type Verdict uint8

const (
	Leave    Verdict = iota // as it is
	Throttle                // set the limits, or set them anew
	Lift                    // take the limits off
)

// Limits of a throttled direction.
type Limits struct {
	Unsent   int64 // in the sink (TCP_NOTSENT_LOWAT); pending bytes are bounded by the same
	Window   int64 // of the source
	UnderWay int64 // what the source has under way at the sink's rate
	Drained  int64 // what the sink takes until the next tick
	Lock     bool  // the kernel should not enlarge the source's receive buffer until then
}

// AfterStall begins to observe a direction that has stalled.
func AfterStall(sink *unix.TCPInfo, now uint32) Flow {
	return Flow{since: now, arrived: arrived(sink)}
}

// AfterThrottle begins to observe a direction that is throttled, or is about to be.
func AfterThrottle(sink *unix.TCPInfo, now uint32) Flow {
	f := AfterStall(sink, now)
	f.stallScore = calmTicks / 2
	return f
}

// rate is the best of the last half second, or of two and a half of the path's round trips if these
// take longer. TCP_INFO's own delivery rate is that of single flights: a receiver that opens its
// window now and then looks fast by it.
func (f *Flow) rate() int64 { return slices.Max(f.rates[:]) }

// growing: more arrives than a round trip ago.
func (f *Flow) growing() bool {
	n := int(f.next) + len(f.rates)
	at := func(i int) int64 { return f.rates[(n-i)%len(f.rates)] }
	return 4*max(at(1), at(2)) > 5*max(at(3), at(4), at(5))
}

// Evaluate takes one sample of the sink, once per tick. If observe is false, the direction need not
// be evaluated again until its next stall, or the end of this one.
func (f *Flow) Evaluate(sink *unix.TCPInfo, d State, now uint32) (v Verdict, observe bool) {
	f.update(sink, d, now)
	switch {
	case d.EOF || f.idleTicks > calmTicks:
		// Nothing more to learn, or nothing moves. A receiver that has stopped must cost nothing.
		if d.Throttled && !d.Stalled {
			v = Lift
		}
		return v, false
	case f.stallScore == 0 && d.Throttled:
		return Lift, true
	case f.stallScore == 0 && !f.wasThrottled:
		return Leave, false
	case f.next == 0: // there is no rate yet
	case d.Throttled, f.stallScore >= stallTicks && !f.ramping(sink) && waitLong(sink, d, f.rate()):
		v = At(f.rate(), d)
	case f.wasThrottled && waitLong(sink, d, f.rate()) && queued(sink, d, f.rate()):
		f.stallScore = calmTicks / 2
		v = At(f.rate(), d)
	}
	return v, true
}

// update notes what a tick has brought.
func (f *Flow) update(sink *unix.TCPInfo, d State, now uint32) {
	if d.Stalled || d.HasStalled {
		f.stallScore = min(f.stallScore+1, calmTicks)
	} else {
		f.stallScore = max(f.stallScore-1, 0)
	}
	f.wasThrottled = f.wasThrottled || d.Throttled
	arrived := arrived(sink)
	if arrived == f.arrived {
		f.idleTicks++
	} else {
		f.idleTicks = 0
	}
	if now-f.since >= max(sampleMillis, sink.Min_rtt/2000) {
		f.rates[f.next%uint32(len(f.rates))] = max(arrived-f.arrived, 0) * 1000 / int64(now-f.since)
		f.next++
		f.since, f.arrived = now, arrived
	}
	f.loosen(d.Throttled && dry(sink, f.rate()))
}

// loosen doubles the slack when the sink is dry, and halves it after a second in which it was not.
func (f *Flow) loosen(dry bool) {
	switch {
	case dry:
		f.slack, f.ticksSinceDry = min(f.slack+1, mostSlack), 0
	case f.ticksSinceDry < calmTicks:
		f.ticksSinceDry++
	case f.slack > 0:
		f.slack, f.ticksSinceDry = f.slack-1, 0
	}
}

// ramping: the sink is in slow start, no queue adds to its round trip, and it either uses most of
// what congestion control allows or is getting faster. That is why bytes wait in front of it, and
// not that its path or its receiver is slow.
func (f *Flow) ramping(sink *unix.TCPInfo) bool {
	return inSlowStart(sink) && !slowed(sink) && (4*sink.Unacked >= 3*sink.Snd_cwnd || f.growing())
}

// At is the verdict on a direction that should be throttled to that rate. If the sink delivers all
// that the kernel can hide fast enough, no limits are needed.
func At(rate int64, d State) Verdict {
	switch {
	case rate*hiddenMillis/1000 < kernelHides:
		return Throttle
	case d.Throttled:
		return Lift
	}
	return Leave
}

// Limits are for a direction that Evaluate wants throttled. For tuned see LimitsAt.
func (f *Flow) Limits(sink, source *unix.TCPInfo, tuned int64) Limits {
	return LimitsAt(f.rate(), f.slack, sink, source, tuned)
}

// LimitsAt are for a sink that delivers at that rate, with so many doublings. The kernel tunes
// receive buffers up to the size tuned (net.ipv4.tcp_rmem[2]).
func LimitsAt(rate int64, slack uint8, sink, source *unix.TCPInfo, tuned int64) Limits {
	underWay := rate * int64(source.Rtt) / 1e6
	unsent, window := rate*unsentMillis/1000, underWay*5/4+rate*windowSpareMicros/1e6+windowSpare
	mostUnsent, mostWindow, lock := int64(math.MaxInt64), int64(math.MaxInt64), false
	if HasCeiling(source, tuned) {
		// With more than the ceiling, a throttled direction could fill more than one that is not.
		// And if more than the lowest arrives in a tick, an unlocked buffer grows beyond it.
		level := levelFor(underWay + rate*needMicros/1e6)
		mostUnsent, mostWindow = ceilingUnsent<<level, ceilingBuffer<<level/2
		lock = rate*tickMillis/1000 > ceilingNeed
	}
	return Limits{
		Unsent: max(unsent, min(unsent<<slack, mostUnsent), leastSegments*int64(sink.Snd_mss)),
		// With a window of less than some segments the source would wait for acknowledgements that
		// its other end delays.
		Window:   max(window, min(window<<slack, mostWindow), leastSegments*segment(source)),
		UnderWay: underWay,
		Drained:  rate * tickMillis / 1000,
		Lock:     lock,
	}
}

// QueueRate is the rate of a sink behind which a queue has built up, and 0 if there is none.
func QueueRate(sink *unix.TCPInfo, d State) int64 {
	rate := int64(sink.Delivery_rate)
	if sock.AppLimited(sink) && sink.Rtt > 0 {
		rate = max(rate, underWay(sink)*1e6/int64(sink.Rtt))
	}
	if rate > 0 && queued(sink, d, rate) {
		return rate
	}
	return 0
}

// arrived is how many bytes the sink's other end says that it has. Bytes behind a gap count: if
// they did not, a second's worth would seem to arrive at once when the gap is filled.
func arrived(sink *unix.TCPInfo) int64 {
	return int64(sink.Bytes_acked) + int64(sink.Sacked)*int64(sink.Snd_mss)
}

// underWay is how many bytes were sent and not acknowledged.
func underWay(sink *unix.TCPInfo) int64 { return int64(sink.Unacked) * int64(sink.Snd_mss) }

// dry: the sink has sent all it had, and its path could carry more at that rate: less is under way
// than its least round trip takes. An empty send queue alone says little, because a queue in front
// of the bottleneck can hold everything.
func dry(sink *unix.TCPInfo, rate int64) bool {
	return sink.Notsent_bytes == 0 && underWay(sink) < rate*int64(sink.Min_rtt+drySpareMicros)/1e6
}

// inSlowStart: the sink's congestion control still looks for what its path can carry.
func inSlowStart(sink *unix.TCPInfo) bool { return sink.Snd_cwnd < sink.Snd_ssthresh }

// farAndInSlowStart: the sink is in slow start, and its round trip takes longer than bytes may
// wait.
func farAndInSlowStart(sink *unix.TCPInfo) bool {
	return inSlowStart(sink) && sink.Min_rtt >= hiddenMillis*1000
}

// slowed: the sink's round trip has grown. That of a long path varies, and grows with bursts.
func slowed(sink *unix.TCPInfo) bool {
	limit := sink.Min_rtt + queueMicros
	if farAndInSlowStart(sink) {
		limit += sink.Min_rtt / 2
	}
	return sink.Rtt >= limit
}

// queued: a queue has built up behind a sink that delivers at that rate.
func queued(sink *unix.TCPInfo, d State, rate int64) bool {
	allowed := int64(sink.Snd_cwnd) * int64(sink.Snd_mss)
	if farAndInSlowStart(sink) {
		allowed = min(allowed, int64(sink.Snd_wnd)) // it grows as well, and is a round trip late
	}
	held := slowed(sink) || 4*underWay(sink) < 3*allowed
	return sink.Rtt >= 2*sink.Min_rtt+queueMicros || held && waitLong(sink, d, rate)
}

// waitLong: at that rate the bytes in front of the sink take long.
func waitLong(sink *unix.TCPInfo, d State, rate int64) bool {
	hidden := int64(sink.Notsent_bytes) + int64(d.Pending)
	return hidden > 0 && hidden*1000 >= rate*hiddenMillis
}

// segment is the size of the source's segments.
func segment(source *unix.TCPInfo) int64 { return int64(max(source.Advmss, source.Rcv_mss)) }
