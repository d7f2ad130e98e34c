package engine

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/flowcontrol"
	"github.com/tprelay/tprelay/engine/internal/pump"
)

// This file applies the ceilings that package flowcontrol decides on. (flowcontrol/ceiling.go says
// what they are for.)

// meteredFlow is a direction that moved a lot lately. It is on the loop's list as long as its pump
// has the flag Metered.
type meteredFlow struct {
	reference
	side  side
	meter flowcontrol.Meter
}

// beginMeter gives a direction the lowest ceiling, and has its rate measured with each tick.
func (l *loop) beginMeter(p *pair, s side) {
	m := flowcontrol.NewMeter(p.dir[s].Bytes, l.millis())
	m.Applied(l.setCeiling(p, s, m.Level()))
	l.meteredFlows = append(l.meteredFlows, meteredFlow{p.ref(), s, m})
	p.dir[s].Set(pump.Metered)
}

// measure sets the ceilings of the directions that move, once per tick.
func (l *loop) measure() {
	now := l.millis()
	keep := l.meteredFlows[:0]
	for _, m := range l.meteredFlows {
		p := l.find(m.reference)
		if p == nil {
			continue
		}
		if p.state == stateOpen && m.meter.Due(now) && !l.remeasure(p, &m, now) {
			p.dir[m.side].Clear(pump.Metered)
			continue
		}
		keep = append(keep, m)
	}
	l.meteredFlows = keep
}

// remeasure decides on the ceiling of a direction. False: it is off the list.
func (l *loop) remeasure(p *pair, m *meteredFlow, now uint32) bool {
	d := &p.dir[m.side]
	var source *unix.TCPInfo
	if m.meter.Moved(d.Bytes) && l.sampleSource(p, m.side) {
		source = &l.source
	}
	apply, observe := m.meter.Measure(source, flowState(d), d.Bytes, now)
	if apply {
		if level := m.meter.Level(); level == flowcontrol.NoCeiling {
			l.removeCeiling(p, m.side)
			m.meter.Applied(true)
		} else {
			m.meter.Applied(l.setCeiling(p, m.side, level))
		}
	}
	return observe
}

// setCeiling limits what the kernel may come to hold for a direction. False: not all of it could
// be set yet. The source was offered more, of which nothing may be dropped, so only the next offers
// are smaller; or the source seems to be far, which a later sample of its round trip may correct.
func (l *loop) setCeiling(p *pair, s side, level flowcontrol.Level) bool {
	source, sink := int(p.fd[s]), int(p.fd[s.other()])
	setNotsentLowat(sink, level.Unsent())
	if l.mostTuned() <= level.Buffer() {
		return true // the kernel makes it no larger
	}
	if l.sampleSource(p, s) && flowcontrol.Far(&l.source) {
		return false
	}
	if flowcontrol.Early(p.dir[s].Bytes) {
		lockReceiveBuffer(source, level.Buffer()/2) // at once; what was offered is asked after that
	}
	b, ok := l.receiveBuffer(source)
	if !ok || !l.sampleSource(p, s) {
		return true // it is broken; its own event tells of that
	}
	size, clamp := flowcontrol.Ceiling(level, &l.source, b)
	lockReceiveBuffer(source, size/2)
	if clamp > 0 {
		setTCP(source, unix.TCP_WINDOW_CLAMP, clamp)
		return false
	}
	setTCP(source, unix.TCP_WINDOW_CLAMP, noWindowClamp)
	return true
}

// backToCeiling ends what the throttle has set of the direction's buffers.
func (l *loop) backToCeiling(p *pair, s side) {
	if l.sampleSource(p, s) && !flowcontrol.HasCeiling(&l.source, l.mostTuned()) {
		l.freeWindow(int(p.fd[s])) // which setCeiling leaves alone
	}
	l.setCeiling(p, s, 0)
}

// removeCeiling leaves the direction's buffers to the kernel.
func (l *loop) removeCeiling(p *pair, s side) {
	setNotsentLowat(int(p.fd[s.other()]), flowcontrol.NoCeiling.Unsent())
	if l.mostTuned() > flowcontrol.Level(0).Buffer() {
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
