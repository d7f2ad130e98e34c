package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// A source that sends at full speed wakes the loop for every few segments, and most of
// what its bytes cost is waking and small moves. So bulk is moderated, as network cards
// moderate interrupts: once a run of a direction has proven to be bulk, its source wakes
// the loop when lowat bytes are there (SO_RCVLOWAT), and they go through a large pipe.
//
//	run:    bytes since the other direction carried any
//	begins: provenBytes of a run within provenTime
//	ends:   nothing was taken for coalesceTimeout, or the direction is throttled
//	again:  after an eighth of that in an eighth of the time, as long as the run lasts:
//	        a sender that shares its CPU falls silent for some milliseconds
//
// While other pairs of the loop are in a dialogue, a turn's budget is moved at a time, as
// for any pair. A FIN, a reset and urgent data wake the loop in any event. The last bytes
// before a silence may wait for as long as coalesceTimeout, and never in a dialogue: each request
// ends the run of replies. docs/experiments.md has the measurements behind the figures.
const (
	provenBytes     = 4 << 20
	provenTime      = 15 * time.Millisecond // 2.2 Gbit/s, at which lowat bytes take two times coalesceTimeout
	lowat           = 1 << 20
	coalesceTimeout = 2 * time.Millisecond
	// largePipeSize is the capacity of the pipes for it, or the high watermark where that is less.
	largePipeSize = 1 << 20 // what /proc/sys/fs/pipe-max-size allows everybody by default
	// maxLargePipes is how many a loop has at most: more than any NIC can fill. keepLargePipes
	// is how many of them stay open while they are not used.
	maxLargePipes, keepLargePipes = 64, 16
)

// moderation is a direction that is moderated, and what was seen of it last.
type moderation struct {
	reference
	side  side
	bytes uint64
	at    time.Time
}

// ran notes that a turn of the direction took n bytes from its source.
func (l *loop) ran(p *pair, s side, n int) {
	d := &p.dir[s]
	if o := &p.dir[s.other()]; o.run > 0 || o.is(proven|looked) {
		l.noteReply(o)
		o.run = 0
		o.clear(proven | looked)
		l.lastTurnaround = l.tick
	}
	if d.is(moderated | throttled) {
		return
	}
	now := l.millis()
	if d.run == 0 {
		d.runAt = now
	}
	enough, within := uint32(provenBytes), provenTime
	if d.is(proven) {
		enough, within = enough/8, within/8
	}
	before := d.run
	d.run += uint32(n)
	if before/lookEvery != d.run/lookEvery {
		if !d.is(metered) {
			l.beginMeter(p, s)
		}
		if d.run < lookUntil && !d.is(looked) {
			l.lookForQueue(p, s)
		}
	}
	if d.run < enough {
		return
	}
	d.set(looked)
	if time.Duration(now-d.runAt)*time.Millisecond <= within {
		d.set(proven)
		l.beginModeration(p, s)
	}
	d.run = 0
}

// interactive: a pair of this loop turned from one direction to the other in this tick or the last. The next
// message is not to wait for moves that are larger than need be.
func (l *loop) interactive() bool { return l.tick-l.lastTurnaround <= 1 }

func (l *loop) beginModeration(p *pair, s side) {
	d := &p.dir[s]
	d.set(moderated)
	l.removeCeiling(p, s)
	setLowat(int(p.fd[s]), lowat)
	l.moderations = append(l.moderations, moderation{reference{p.slot, p.generation}, s, d.bytes, l.now})
	l.count.moderations++
}

// moderate ends the moderation of directions that bring nothing, be it that their
// source is silent or that their sink has stopped: neither may keep the loop awake.
func (l *loop) moderate() {
	keep := l.moderations[:0]
	for _, m := range l.moderations {
		p := l.find(m.reference)
		if p == nil || p.state != stateOpen || !p.dir[m.side].is(moderated) {
			continue
		}
		d := &p.dir[m.side]
		switch {
		case d.is(throttled):
			l.unmoderate(p, m.side)
			continue
		case d.bytes != m.bytes:
			m.bytes, m.at = d.bytes, l.now
		case l.now.Sub(m.at) >= coalesceTimeout:
			l.unmoderate(p, m.side)
			continue
		}
		keep = append(keep, m)
	}
	l.moderations = keep
}

// unmoderate has the source wake us for every byte again. What is there already gave no
// event, so it is looked at.
func (l *loop) unmoderate(p *pair, s side) {
	d := &p.dir[s]
	d.clear(moderated)
	setLowat(int(p.fd[s]), 1)
	d.set(readable)
	l.queue(p)
}

// setLowat sets SO_RCVLOWAT of a socket that may have broken meanwhile.
func setLowat(fd, bytes int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
}
