package engine

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
)

// A source that sends at full speed wakes the loop for every few segments, and most of what its
// bytes cost is waking and small moves. So bulk is moderated, as network cards moderate interrupts:
// once a run of a direction has proven to be bulk (internal/pump/run.go), its source wakes the loop
// when pump.Lowat bytes are there (SO_RCVLOWAT), and they go through a large pipe. That ends when
// nothing was taken for coalesceTimeout, and when the direction is throttled.
//
// While other pairs of the loop are in a dialogue, a turn's budget is moved at a time, as for any
// pair. A FIN, a reset and urgent data wake the loop in any event. The last bytes before a silence
// may wait for as long as coalesceTimeout, and never in a dialogue: each request ends the run of
// replies. docs/experiments.md has the measurements behind the figures.
const (
	coalesceTimeout = 2 * time.Millisecond
	// maxLargePipes is how many large pipes a loop has at most: more than any NIC can fill.
	// keepLargePipes is how many of them stay open while they are not used.
	maxLargePipes, keepLargePipes = 64, 16
)

// moderation is a direction that is moderated, and what was seen of it last.
type moderation struct {
	reference
	side  side
	bytes uint64
	at    time.Time
}

func (l *loop) beginModeration(p *pair, s side) {
	d := &p.dir[s]
	d.Set(pump.Moderated)
	l.removeCeiling(p, s)
	setLowat(int(p.fd[s]), pump.Lowat)
	l.moderations = append(l.moderations, moderation{p.ref(), s, d.Bytes, l.now})
	l.count.moderations++
}

// moderate ends the moderation of directions that bring nothing, because their source is silent or
// because their sink has stopped. Neither may keep the loop awake.
func (l *loop) moderate() {
	keep := l.moderations[:0]
	for _, m := range l.moderations {
		p := l.find(m.reference)
		if p == nil || p.state != stateOpen || !p.dir[m.side].Is(pump.Moderated) {
			continue
		}
		d := &p.dir[m.side]
		switch {
		case d.Is(pump.Throttled):
			l.unmoderate(p, m.side)
			continue
		case d.Bytes != m.bytes:
			m.bytes, m.at = d.Bytes, l.now
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
	d.Clear(pump.Moderated)
	setLowat(int(p.fd[s]), 1)
	d.MayRead()
	l.queue(p)
}

// setLowat sets SO_RCVLOWAT of a socket that may have broken meanwhile.
func setLowat(fd, bytes int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
}
