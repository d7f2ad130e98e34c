package engine

import (
	"errors"
	"fmt"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// What must hold.

// check looks at what end s has got since it had n bytes, and at how its stream ended.
func (p *modelPair) check(s side, n int) error {
	e, source, how := p.end[s], p.end[s.other()], p.how[s.other()]
	var sent []byte
	if source != nil {
		sent = source.sent
	}
	if len(e.got) > n || e.eof {
		want, got := sent, e.got
		if how.want != nil {
			want = how.want(sent)
		}
		if how.strip != nil {
			got, n = how.strip(got), 0
		}
		if how.shrinks > 0 && source != nil && source.broke && !e.eof {
			// The stream was cut: its last bytes may be the beginning of what would be replaced.
			got = got[:max(len(got)-how.shrinks, 0)]
			n = min(n, len(got))
		}
		if n > len(want) || len(got) > len(want) || !begins(want[n:], got[n:]) {
			return fmt.Errorf("end %d: %d bytes are not the beginning of the %d that come of %d sent", s, len(got), len(want), len(sent))
		}
		// A clean end means that all bytes have arrived, and that there was one.
		if e.eof && !p.mayClose(s) {
			switch {
			case source == nil || !source.fin && !p.mayClose(s.other()):
				return fmt.Errorf("end %d saw a FIN that nobody sent", s)
			case len(got) != len(want):
				return fmt.Errorf("end %d saw a FIN after %d of %d bytes", s, len(got), len(want))
			}
		}
	}
	if e.reset && p.strict() {
		return fmt.Errorf("end %d was reset without a reason", s)
	}
	return nil
}

// mayClose: the handler of the direction from end s may have closed the pair, so that bytes
// of the other direction are thrown away.
func (p *modelPair) mayClose(s side) bool {
	return p.how[s].closes > 0 && p.end[s] != nil && len(p.end[s].sent) >= p.how[s].closes
}

func (p *modelPair) mayReset() bool {
	for s, e := range p.end {
		if e != nil && p.how[s].resets > 0 && len(e.sent) >= p.how[s].resets {
			return true
		}
	}
	return false
}

// strict: nothing has happened but writes and FINs, so all must arrive.
func (p *modelPair) strict() bool {
	for _, e := range p.end {
		if e == nil || e.broke || e.closed || e.shutRead {
			return false
		}
	}
	return !p.mayReset() && !p.timedOut()
}

func (p *modelPair) timedOut() bool {
	return p.reason == ReasonIdleTimeout || p.reason == ReasonHalfCloseTimeout || p.reason == ReasonConnectTimeout
}

// checkEnd looks at a pair that is over.
func (p *modelPair) checkEnd(resetPatience uint32) error {
	for s, h := range p.handlers {
		if h == nil {
			continue
		}
		if h.closed != 1 || h.ends > 1 || h.late {
			return fmt.Errorf("the handler of direction %d was closed %d times, told of the end %d times, called too late: %v", s, h.closed, h.ends, h.late)
		}
	}
	closed := p.mayClose(incoming) || p.mayClose(outgoing)
	switch {
	case p.refused:
		if p.reason != ReasonDialError && p.reason != ReasonReset && !p.mayReset() && !p.timedOut() {
			return fmt.Errorf("nobody listened, and the pair ended with %v", p.reason)
		}
	case p.strict() && !closed:
		for s := range side(2) {
			if e := p.end[s]; !e.eof {
				return fmt.Errorf("end %d saw no FIN", s)
			}
		}
		if p.reason != ReasonEOF {
			return fmt.Errorf("both ends had ended, and the pair with %v", p.reason)
		}
	case p.strict() && p.reason != ReasonIntercepted && p.reason != ReasonEOF:
		return fmt.Errorf("a handler has closed, and the pair ended with %v", p.reason)
	}
	for s := range side(2) {
		e, other := p.end[s], p.end[s.other()]
		if e == nil || e.fd < 0 || e.shutRead {
			continue
		}
		// Who breaks off has not ended.
		if other != nil && other.broke && !other.fin && !closed && e.eof {
			return fmt.Errorf("end %d saw a FIN of one that had sent an RST", s)
		}
		if other != nil && other.broke && !other.shutRead && !other.reset && !closed && !p.mayReset() && !p.timedOut() && p.ended-other.brokeAt < resetPatience {
			if least := p.least(s.other()); len(e.got) < least {
				return fmt.Errorf("end %d got %d bytes of one that had sent an RST, behind at least %d", s, len(e.got), least)
			}
		}
		if !e.eof && !e.reset {
			return fmt.Errorf("end %d was told nothing", s)
		}
	}
	return nil
}

// least is how many bytes must arrive of end s, which has sent an RST: what had reached the
// relay before. A few more bytes than those may make a replacement shorter.
func (p *modelPair) least(s side) int {
	how, sent := p.how[s], p.end[s].sent[:p.end[s].safe]
	if how.want == nil {
		return len(sent)
	}
	return len(how.want(sent)) - how.shrinks
}

// check looks at the loop: its accounts, its lists, and whether it has forgotten anybody.
func (w *modelWorld) check() error {
	var pending, memory int64
	queues, pipes := 0, len(w.taken)
	queued := map[reference]int{}
	for _, r := range w.ready {
		queued[r]++
	}
	lists := map[pump.Flags]map[onList]int{pump.Watched: {}, pump.Moderated: {}, pump.Metered: {}}
	for _, x := range w.throttledFlows {
		lists[pump.Watched][onList{x.reference, x.side}]++
	}
	for _, x := range w.moderations {
		if p := w.find(x.reference); p != nil && p.dir[x.side].Is(pump.Moderated) { // otherwise it leaves the list at the next look
			lists[pump.Moderated][onList{x.reference, x.side}]++
		}
	}
	for _, x := range w.meteredFlows {
		lists[pump.Metered][onList{x.reference, x.side}]++
	}
	inUse := 0
	for slot := range w.loop.pairs.size() {
		p := w.loop.pairs.at(slot)
		if p.state == stateFree {
			continue
		}
		inUse++
		r := p.ref()
		if want := 0; p.queued {
			want = 1
			if queued[r] != want {
				return fmt.Errorf("slot %d is %d times on the ready list, want %d", slot, queued[r], want)
			}
		}
		for s := range side(2) {
			d := &p.dir[s]
			pending += int64(d.Pending)
			if err := d.Check(&w.env); err != nil {
				return fmt.Errorf("slot %d direction %d: %w", slot, s, err)
			}
			size, inPipe, inQueue := d.Stored(&w.env)
			memory += size
			if inPipe {
				pipes++
			}
			if inQueue {
				queues++
			}
			if x := w.extra(p); x != nil {
				if size, held := x.taps[s].Stored(&w.env); held {
					queues++
					memory += size
					pending += int64(x.taps[s].Held(&w.env))
				}
			}
			for flag, list := range lists {
				n := list[onList{r, s}]
				if flag == pump.Moderated {
					n = min(n, 1) // it may have been moderated again before the next look
				}
				if d.Is(flag) != (n == 1) || n > 1 {
					return fmt.Errorf("slot %d direction %d (%v): %d times on the list for flag %#x", slot, s, d, n, flag)
				}
			}
			if err := w.checkDirection(p, s); err != nil {
				return fmt.Errorf("slot %d direction %d (%v, %d pending): %w", slot, s, d, d.Pending, err)
			}
		}
	}
	switch {
	case inUse != w.loop.pairs.used:
		return fmt.Errorf("%d pairs, counted %d", inUse, w.loop.pairs.used)
	case pending != w.count.Pending:
		return fmt.Errorf("%d bytes pending, counted %d", pending, w.count.Pending)
	case memory != w.env.Budget.Used:
		return fmt.Errorf("%d bytes of memory, counted %d", memory, w.env.Budget.Used)
	case queues != w.env.Queues.InUse():
		return fmt.Errorf("%d queues in use, %d counted", queues, w.env.Queues.InUse())
	case pipes != w.env.Pipes.Open()-w.env.Pipes.Idle()+w.env.LargePipes.Open()-w.env.LargePipes.Idle():
		return fmt.Errorf("%d pipes in use, %d and %d counted", pipes, w.env.Pipes.Open()-w.env.Pipes.Idle(), w.env.LargePipes.Open()-w.env.LargePipes.Idle())
	}
	return nil
}

// onList names a direction on a list.
type onList struct {
	reference
	side side
}

// checkDirection: it holds no more than it may, and nothing that it could do is forgotten.
func (w *modelWorld) checkDirection(p *pair, s side) error {
	d := &p.dir[s]
	var model *modelPair
	for _, m := range w.pairs {
		if m.ref == p.ref() {
			model = m
		}
	}
	most := w.env.High + 4<<10
	if how := model.how[s]; how.growth > 1 || how.holds > 0 {
		most += max(how.growth, 1) * (how.holds + 64<<10)
	}
	if s == upstream {
		most += max(model.how[s].growth, 1) * model.prefix
	}
	if int(d.Pending) > most {
		return fmt.Errorf("more than %d bytes pending", most)
	}
	if d.Is(pump.Starved) && !w.waitsForMemory(p) {
		return errors.New("starved, and not on the list of those who wait for memory")
	}
	if p.queued || p.state != stateOpen || w.told(p) {
		return nil
	}
	switch {
	case d.Pending > 0 && d.Is(pump.Writable):
		return errors.New("bytes could go on, and nobody cares")
	case d.CanRead():
		return errors.New("bytes could be read, and nobody cares")
	case d.Is(pump.EOF|pump.Closing) && d.Pending == 0 && !d.Is(pump.FINSent) && !d.Is(pump.Broken):
		return errors.New("the FIN could be passed on, and nobody cares")
	}
	// What the latch does not know must come as an event. The kernel is asked for bytes
	// first: an event for those is there by the time it is asked for events. (poll(2) is not
	// used: it asks for events that would otherwise not come.)
	if d.Is(pump.Moderated) {
		for _, m := range w.moderations {
			if m.reference == p.ref() && m.side == s {
				return nil // looked at when coalesceTimeout is over
			}
		}
		return errors.New("moderated, and not on the list of those")
	}
	if fd := int(p.fd[s]); !d.Is(pump.Readable|pump.EOF) && sock.Unread(fd) > 0 {
		if _, err := w.poll(0); err != nil {
			return err
		}
		if !w.told(p) && sock.Unread(fd) > 0 {
			return fmt.Errorf("%d bytes wait in the socket, and no event will come", sock.Unread(fd))
		}
	}
	return nil
}

// told: an event of p is there that the loop was not shown yet.
func (w *modelWorld) told(p *pair) bool {
	for _, ev := range w.events {
		if t := ev.Token(); t.Key>>1 == p.slot && t.Generation == p.generation {
			return true
		}
	}
	return false
}

func (w *modelWorld) waitsForMemory(p *pair) bool {
	for _, r := range w.memWaiters {
		if r.slot == p.slot && r.generation == p.generation {
			return true
		}
	}
	return false
}

// checkEmpty: all pairs are over, and nothing is left of them.
func (w *modelWorld) checkEmpty() error {
	for i, p := range w.pairs {
		if err := p.checkEnd(w.resetPatience()); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
	}
	switch {
	case w.loop.pairs.used != 0 || w.wheel.count != 0 || w.engine.active.Load() != 0:
		return fmt.Errorf("all are over; %d pairs, %d timers, %d active", w.loop.pairs.used, w.wheel.count, w.engine.active.Load())
	case w.env.Budget.Used != 0 || w.count.Pending != 0:
		return fmt.Errorf("all are over; memory %d, pending %d", w.env.Budget.Used, w.count.Pending)
	}
	for _, x := range w.sideTable {
		if x != nil {
			return errors.New("all are over, and the side table is not empty")
		}
	}
	return nil
}
