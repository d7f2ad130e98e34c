package engine

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// pairsAtOnce is how many pairs a loop describes between two waits.
const pairsAtOnce = 512

// Pairs calls f for every live pair, until f returns false. f runs on the caller's goroutine and
// may block. The loops go on meanwhile: each describes some hundreds of its pairs at a time, so
// pairs that open or end in between may be missed. An engine that does not run has no pairs. The
// error is ErrOnLoop in a callback, and nil otherwise.
func (e *Engine) Pairs(f func(PairInfo) bool) error {
	if e.onLoop() {
		return ErrOnLoop
	}
	for _, l := range e.loops {
		for slot := int32(0); slot >= 0; {
			infos, next, ok := l.describe(slot)
			if !ok {
				break
			}
			for _, info := range infos {
				if !f(info) {
					return nil
				}
			}
			slot = next
		}
	}
	return nil
}

// describe asks the loop for its pairs from slot on; next is where to go on, or -1.
func (l *loop) describe(slot int32) (infos []PairInfo, next int32, ok bool) {
	if l.engine.runs() != nil {
		return nil, -1, false
	}
	ok = l.ask(func(l *loop) {
		next = -1
		for ; slot < l.pairs.size(); slot++ {
			if len(infos) == pairsAtOnce {
				next = slot
				break
			}
			if p := l.pairs.at(slot); p.state != stateFree {
				infos = append(infos, l.info(p))
			}
		}
	})
	return infos, next, ok
}

// info describes p.
func (l *loop) info(p *pair) PairInfo {
	return PairInfo{
		ID:          p.id,
		Client:      p.clientAddr(),
		Destination: p.destinationAddr(),
		Connected:   l.target(p),
		Listener:    l.engine.listenAddr(p),
		Mode:        l.engine.mode(p),
		SpoofLevel:  p.level,
		Established: p.opened,
		Since:       l.now.Add(-l.age(p)).Round(0), // without the monotonic clock's reading
		Duration:    l.age(p),
		Upstream:    l.directionInfo(p, upstream),
		Downstream:  l.directionInfo(p, downstream),
	}
}

// age is how long the pair has lived, by the monotonic clock.
func (l *loop) age(p *pair) time.Duration {
	return max(l.now.Sub(l.start)-time.Duration(p.began), 0)
}

func (l *loop) directionInfo(p *pair, s side) DirectionInfo {
	d := &p.dir[s]
	info := DirectionInfo{
		Bytes:        d.Bytes,
		Acknowledged: d.Bytes - min(d.Bytes, l.unacknowledged(p, s)),
		Messages:     d.Messages,
		Pending:      int(d.Pending),
		Pauses:       d.Pauses,
		Paused:       d.Is(pump.Stalled),
		Throttled:    d.Is(pump.Throttled),
		EOF:          d.Is(pump.EOF),
		FinSent:      d.Is(pump.FINSent),
	}
	if x := l.extra(p); x != nil {
		info.Pending += x.taps[s].Held(&l.env)
	}
	info.PausedFor = time.Duration(d.StalledTicks(l.tick)) * tickLength
	switch {
	case d.Buffered(&l.env):
		info.Path = PathBuffer
	case d.Is(pump.Detached):
		info.Path = PathDetached
	}
	return info
}

// unacknowledged is how many bytes of a direction its sink's socket has accepted, and the
// sink's other end has not acknowledged. It asks the kernel.
func (l *loop) unacknowledged(p *pair, s side) uint64 {
	sink := int(p.fd[s.other()])
	if sink < 0 {
		return 0
	}
	n := sock.Unsent(sink)
	if n > 0 && p.dir[s].Is(pump.FINSent) && l.tcpInfo(sink) {
		switch l.tcp.State {
		case unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_CLOSING, unix.BPF_TCP_LAST_ACK:
			n-- // the FIN counts as one
		}
	}
	return uint64(n)
}

func (e *Engine) listenAddr(p *pair) netip.AddrPort {
	if p.listener < 0 {
		return netip.AddrPort{}
	}
	return e.addrs[p.listener]
}

// mode is how the pair came; adopted ones count as forwarded.
func (e *Engine) mode(p *pair) tproxy.Mode {
	if p.listener < 0 {
		return tproxy.Forward
	}
	return e.options.Listeners[p.listener].Mode
}
