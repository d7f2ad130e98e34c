package engine

import (
	"math"
	"slices"
	"time"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// The watermarks bound what the relay holds, but not what the kernel holds for it:
// the source's receive buffer and the sink's send buffer grow to megabytes by
// themselves, and a sender in front of them believes in a rate that is not there
// until they are full. So a direction whose sink falls behind is throttled through them,
// and the throttle follows the sink with every tick:
//
//	sink:    TCP_NOTSENT_LOWAT = what it delivers in 20 ms
//	relay:   pending bytes at most as many
//	source:  window = what the sink delivers in five quarters of the source's round trip
//	         and 10 ms, and 8 KiB
//
// none less than four segments, and all twice that after each tick that found the sink dry,
// be it that the link got faster, or that a busy machine let us wait; half of it after a
// second without, and for a near source never more than the ceiling of its rate. When the sink no
// longer stalls, all is lifted. A path that is fast is left
// alone: what counts is how long the hidden bytes take, not how many they are.
//
// What a source was promised room for it may have sent, so the throttle has to come before
// the kernel's tuning has promised much. Two signs bring it:
//
//	a queue:  what waits in front of the sink takes too long, and its round trip has grown,
//	          or it sends less than congestion control lets it: its own device or the
//	          receiver holds it up. Looked for while a run of bytes begins.
//	stalls:   the direction has stalled in two ticks: a slow receiver, or losses
//
// Slow start on a long path lets bytes wait, too, and the direction stalls. It brings neither
// sign. A window that shrank then would be small when a loss in front of the relay needs it.

const (
	// throttleAfter is for how many ticks a direction must stall before it is
	// throttled, calmAfter for how many it must not stall before that is lifted.
	throttleAfter = 2
	calmAfter     = 10
	// hiddenMillis is how long the bytes that wait in front of the sink must take for
	// a throttle to begin, and queueMicros how much a queue adds to its round trip.
	hiddenMillis = 30
	queueMicros  = 10_000
	// lowatMillis is how much the sink keeps unsent: enough that it never runs dry
	// between two turns.
	lowatMillis = 20
	// leastSegments is how many segments fit at least: beyond loopback's, which are as
	// large as 64 KiB, this decides nothing.
	leastSegments = 4
	// kernelHides is how much a send buffer that is left alone comes to hold
	// (net.ipv4.tcp_wmem[2] is 4 MiB by default). A sink that delivers this within
	// hiddenMillis has nothing to hide.
	kernelHides = 4 << 20
	// windowSpare is what the source's window has beyond its round trip, in bytes and in
	// time: as much as comes while the relay does something else.
	windowSpare       = 8 << 10
	windowSpareMicros = 10_000
	// mostSlack is how many doublings of all that there are.
	mostSlack = 3
	// drySpareMicros is what a path has under way beyond its least round trip while
	// nothing more could be.
	drySpareMicros = 5_000
	// sampleMillis is the least time over which a rate is measured. On a long path it is half a
	// round trip: what arrives, arrives at once.
	sampleMillis = 50
)

// watch is a direction that stalled of late, or is or was throttled.
type watch struct {
	reference
	side    side
	strikes int8     // ticks with a stall, less those without; bounded
	still   int8     // ticks in which nothing arrived at the sink's other end
	next    uint32   // of rates
	slack   uint8    // doublings of what the throttle leaves
	wet     int8     // ticks without a dry sink, since the slack was last changed
	once    bool     // it has been throttled
	since   uint32   // milliseconds since the loop's start
	arrived int64    // at the sink's other end, at that time
	rates   [5]int64 // bytes per second, of late
}

// rate is the best of the last half second, or of two and a half of the path's round trips if
// these take longer. (TCP_INFO's own delivery rate is that of single flights: a receiver that
// opens its window now and then looks fast.)
func (w *watch) rate() int64 { return slices.Max(w.rates[:]) }

// growing: more arrives than a round trip ago.
func (w *watch) growing() bool {
	n := int(w.next) + len(w.rates)
	at := func(i int) int64 { return w.rates[(n-i)%len(w.rates)] }
	return 4*max(at(1), at(2)) > 5*max(at(3), at(4), at(5))
}

// arrived is how many bytes the sink's other end says that it has. (Not only up to the first
// that is missing: when that comes at last, it looks as if a second's worth came at once.)
// Invariant: l.tcp is the sink's.
func (l *loop) arrived() int64 {
	return int64(l.tcp.Bytes_acked) + int64(l.tcp.Sacked)*int64(l.tcp.Snd_mss)
}

// millis is the time since the loop's start.
func (l *loop) millis() uint32 { return uint32(l.now.Sub(l.start) / time.Millisecond) }

// watchStall begins to look at a direction that has stalled.
func (l *loop) watchStall(p *pair, s side) {
	if !p.dir[s].Is(pump.Watched) && l.tcpInfo(int(p.fd[s.other()])) {
		l.watch(p, s, 0)
	}
}

// watch has the direction looked at with each tick. Invariant: l.tcp is the sink's.
func (l *loop) watch(p *pair, s side, strikes int8) {
	if l.engine.options.NoFlowControl {
		return
	}
	p.dir[s].Set(pump.Watched)
	l.watches = append(l.watches, watch{
		reference: reference{p.slot, p.generation}, side: s, strikes: strikes, since: l.millis(), arrived: l.arrived(),
	})
}

// lookForQueue throttles the direction at once when a queue has built up behind its sink.
func (l *loop) lookForQueue(p *pair, s side) {
	d := &p.dir[s]
	if l.engine.options.NoFlowControl || d.Is(pump.EOF) || !l.tcpInfo(int(p.fd[s.other()])) {
		return
	}
	rate := int64(l.tcp.Delivery_rate)
	if sock.AppLimited(&l.tcp) && l.tcp.Rtt > 0 {
		rate = max(rate, int64(l.tcp.Unacked)*int64(l.tcp.Snd_mss)*1e6/int64(l.tcp.Rtt))
	}
	if rate > 0 && l.queued(d, rate) {
		if !d.Is(pump.Watched) {
			l.watch(p, s, calmAfter/2)
		}
		l.adjust(p, s, rate, 0)
	}
}

// throttle looks at every direction that is watched, once per tick.
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
	if d.Is(pump.Stalled | pump.HasStalled) {
		w.strikes = min(w.strikes+1, calmAfter)
	} else {
		w.strikes = max(w.strikes-1, 0)
	}
	w.once = w.once || d.Is(pump.Throttled)
	d.Clear(pump.HasStalled)
	if !l.tcpInfo(int(p.fd[w.side.other()])) {
		d.Clear(pump.Watched)
		return false
	}
	arrived := l.arrived()
	if arrived == w.arrived {
		w.still++
	} else {
		w.still = 0
	}
	if now := l.millis(); now-w.since >= max(sampleMillis, l.tcp.Min_rtt/2000) {
		w.rates[w.next%uint32(len(w.rates))] = max(arrived-w.arrived, 0) * 1000 / int64(now-w.since)
		w.next++
		w.since, w.arrived = now, arrived
	}
	w.loosen(d.Is(pump.Throttled) && l.dry(w.rate()))
	switch {
	case d.Is(pump.EOF) || w.still > calmAfter:
		// Nothing more to learn, or nothing moves: the end of its stall, or the next,
		// brings it back. A receiver that has stopped must cost nothing.
		if d.Is(pump.Throttled) && !d.Is(pump.Stalled) {
			l.lift(p, w.side)
		}
		d.Clear(pump.Watched)
		return false
	case w.strikes == 0 && d.Is(pump.Throttled):
		l.lift(p, w.side)
	case w.strikes == 0 && !w.once:
		d.Clear(pump.Watched)
		return false
	case w.next == 0:
	case d.Is(pump.Throttled), w.strikes >= throttleAfter && !l.ramping(w) && l.waitLong(d, w.rate()):
		l.adjust(p, w.side, w.rate(), w.slack)
	case w.once && l.waitLong(d, w.rate()) && l.queued(d, w.rate()):
		w.strikes = calmAfter / 2
		l.adjust(p, w.side, w.rate(), w.slack)
	}
	return true
}

// dry: the sink has sent all it had, and its path, at that rate in bytes per second, could
// carry more: less is under way than its least round trip takes. (Nothing unsent alone says
// little: a queue in front of the bottleneck can hold everything.) Invariant: l.tcp is the
// sink's.
func (l *loop) dry(rate int64) bool {
	underway := int64(l.tcp.Unacked) * int64(l.tcp.Snd_mss)
	return l.tcp.Notsent_bytes == 0 && underway < rate*int64(l.tcp.Min_rtt+drySpareMicros)/1e6
}

// loosen doubles the slack when the sink is dry, and takes half of it back after a second in
// which it was not.
func (w *watch) loosen(dry bool) {
	switch {
	case dry:
		w.slack, w.wet = min(w.slack+1, mostSlack), 0
	case w.wet < calmAfter:
		w.wet++
	case w.slack > 0:
		w.slack, w.wet = w.slack-1, 0
	}
}

// ramping: the sink is in slow start, no queue adds to its round trip, and it uses nearly all
// that congestion control allows or is getting faster. Bytes wait in front of it for that, and
// not because its path or its receiver is slow. Invariant: l.tcp is the sink's.
func (l *loop) ramping(w *watch) bool {
	return l.inSlowStart() && !l.slowed() && (4*l.tcp.Unacked >= 3*l.tcp.Snd_cwnd || w.growing())
}

// inSlowStart: congestion control of the sink still looks for what its path can carry.
// Invariant: l.tcp is the sink's.
func (l *loop) inSlowStart() bool { return l.tcp.Snd_cwnd < l.tcp.Snd_ssthresh }

// farAndInSlowStart: and a round trip takes longer than bytes may wait. Invariant: l.tcp is the
// sink's.
func (l *loop) farAndInSlowStart() bool {
	return l.inSlowStart() && l.tcp.Min_rtt >= hiddenMillis*1000
}

// slowed: the sink's round trip has grown. That of a long path varies, and grows with bursts.
// Invariant: l.tcp is the sink's.
func (l *loop) slowed() bool {
	most := l.tcp.Min_rtt + queueMicros
	if l.farAndInSlowStart() {
		most += l.tcp.Min_rtt / 2
	}
	return l.tcp.Rtt >= most
}

// queued: a queue has built up behind the sink, which delivers so many bytes per second.
// Invariant: l.tcp is the sink's.
func (l *loop) queued(d *pump.Pump, rate int64) bool {
	mss := int64(l.tcp.Snd_mss)
	underway, allowed := int64(l.tcp.Unacked)*mss, int64(l.tcp.Snd_cwnd)*mss
	if l.farAndInSlowStart() {
		allowed = min(allowed, int64(l.tcp.Snd_wnd)) // it grows as well, and is a round trip late
	}
	held := l.slowed() || 4*underway < 3*allowed
	return l.tcp.Rtt >= 2*l.tcp.Min_rtt+queueMicros || held && l.waitLong(d, rate)
}

// waitLong: the bytes that wait in front of the sink take long at that rate, in bytes per
// second. Invariant: l.tcp is the sink's.
func (l *loop) waitLong(d *pump.Pump, rate int64) bool {
	hidden := int64(l.tcp.Notsent_bytes) + int64(d.Pending)
	return hidden > 0 && hidden*1000 >= rate*hiddenMillis
}

// adjust sets the throttle to the rate, in bytes per second, at which the sink
// delivers, with so many doublings of slack. Invariant: l.tcp is the sink's.
func (l *loop) adjust(p *pair, s side, rate int64, slack uint8) {
	d := &p.dir[s]
	sink, source := int(p.fd[s.other()]), int(p.fd[s])
	if rate*hiddenMillis/1000 >= kernelHides {
		if d.Is(pump.Throttled) {
			l.lift(p, s)
		}
		return
	}
	sinkSegment := int64(l.tcp.Snd_mss)
	if !l.tcpInfo(source) {
		return
	}
	underway := rate * int64(l.tcp.Rtt) / 1e6
	lowat, window := rate*lowatMillis/1000, underway*5/4+rate*windowSpareMicros/1e6+windowSpare
	// The slack does not take a near source beyond the ceiling that its rate calls for. When more
	// than fits the lowest comes in a tick, the kernel must not enlarge the buffer meanwhile.
	mostLowat, mostWindow, locked := int64(math.MaxInt64), int64(math.MaxInt64), false
	if l.tcp.Min_rtt < farMicros && l.mostTuned() > ceilingBuffer {
		level := levelFor(underway + rate*needMicros/1e6)
		mostLowat, mostWindow = ceilingUnsent<<level, ceilingBuffer<<level/2
		locked = rate*tickLength.Milliseconds()/1000 > ceilingNeed
	}
	lowat = max(lowat, min(lowat<<slack, mostLowat), leastSegments*sinkSegment)
	// Less than some segments would have the source wait for acknowledgements that its other end
	// delays.
	window = max(window, min(window<<slack, mostWindow), leastSegments*int64(max(l.tcp.Advmss, l.tcp.Rcv_mss)))
	d.Set(pump.Throttled)
	d.PendingLimit = uint32(min(lowat, int64(l.env.High)))
	setNotsentLowat(sink, int64(d.PendingLimit))
	l.holdWindow(source, window, underway, rate*tickLength.Milliseconds()/1000, locked)
	l.count.throttles++
}

// lift takes the throttle off.
func (l *loop) lift(p *pair, s side) {
	d := &p.dir[s]
	d.Clear(pump.Throttled)
	d.PendingLimit = 0
	l.backToCeiling(p, s)
}
