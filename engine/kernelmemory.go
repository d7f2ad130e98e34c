package engine

import "github.com/tprelay/tprelay/internal/sock"

// Stats.KernelMemory is sampled. A loop asks the kernel for the memory of its pairs' sockets in
// rounds: at most sampledPairs pairs in a tick, so that no tick is late for it, and each
// pair once in a round. Rounds begin no more often than once in roundTicks. The figure is the
// sum of the last whole round. So it is as old as two rounds at most: two seconds with up to
// 1,280 pairs in a loop, 16 with 10,000.
//
// A loop with nothing else to do is woken for a round only as long as the figure could change:
// after a wake-up for anything else, and while bytes wait in sockets (once per roundTicks).

const (
	sampledPairs = 128
	sampledSlots = 16 * sampledPairs // that are looked at in a tick, used or not
	roundTicks   = 10
)

// sampling is a round.
type sampling struct {
	next  int32  // slot
	begun uint32 // tick in which it began
	woken uint64 // events by then
	sum   int64  // bytes so far
	queue int64  // of them, those that wait: what a socket keeps in reserve is left out
	done  bool
	still bool // nothing waited, and nothing has happened since
}

// sample goes on with the round, once per tick.
func (l *loop) sample() {
	r := &l.round
	if r.done {
		if l.tick-r.begun < roundTicks {
			return
		}
		*r = sampling{begun: l.tick, woken: l.count.events}
	}
	last := min(r.next+sampledSlots, l.pairs.size())
	for left := sampledPairs; r.next < last && left > 0; r.next++ {
		p := l.pairs.at(r.next)
		if p.state == stateFree {
			continue
		}
		left--
		for _, fd := range p.fd {
			if fd >= 0 {
				m, _ := sock.Memory(int(fd))
				r.sum += m.All()
				r.queue += m.Queued()
			}
		}
	}
	if r.next < l.pairs.size() {
		return
	}
	r.done = true
	r.still = r.queue == 0 && l.count.events == r.woken
	l.count.kernelMemory = r.sum
}

// untilSample is how many ticks there are until sample has something to do; -1: it has nothing
// to do until something else happens.
func (l *loop) untilSample() int {
	r := &l.round
	switch {
	case r.done && r.still && l.count.events == r.woken:
		return -1
	case r.done:
		return max(roundTicks-int(l.tick-r.begun), 1)
	}
	return 1
}
