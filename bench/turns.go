package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/tprelay/tprelay/bench/worker"
)

// A machine's speed changes while it is measured, a virtual one's by half from one second to the
// next. So where a client does what it can, all relays of a heat are there at the same time, each
// with hosts and ends of its own, and take turns of some tenths of a second: while one has its
// turn, the clients of the others are stopped, or the servers where these send. What the machine
// does meets all of them alike, and in the ratios hardly anything of it is left.
//
//	relay 1   lead|counts|          stopped          |lead|counts|
//	relay 2        stopped       |lead|counts|      stopped
//	                          drain
const (
	// leastTurn is how long a turn counts at least, however many relays there are.
	leastTurn = 50 * time.Millisecond
	// turnDrain is what is left between two turns.
	turnDrain = 10 * time.Millisecond
	// turnConnections is with how many connections at most a turn is long against a request.
	turnConnections = 2000
	// turnStreams and turnReply are with how many streams, and replies of how many bytes, at most
	// nobody lacks pipes: the kernel lets those of a user hold 64 MiB in all, and io.Copy keeps 1 MiB
	// for each stream, and for each connection, so that the next relay's would have two pages. (Small
	// replies need none.)
	turnStreams = 4
	turnReply   = 4 << 10
)

// pace is how turns follow each other.
type pace struct {
	// lead is how long a client is at work before its turn counts: so long that what it was
	// stopped in the middle of is over, and that all is as if it had never been stopped.
	lead time.Duration
	// longest is how long a turn counts at most. With less, more time goes into leads; with more,
	// what the machine does meanwhile meets one relay alone.
	longest time.Duration
	// cycle is how long it takes until a relay has its next turn, at most, if that is possible.
	cycle time.Duration
}

// pace is that of the point's turns. docs/experiments.md, "Method", has the measurements behind it.
func (p Point) pace() pace {
	if p.Scenario == "rr" {
		// After a pause the scheduler needs half a second to find who belongs on which CPU.
		return pace{lead: 500 * time.Millisecond, longest: time.Second, cycle: 10 * time.Second}
	}
	// Streams are up to speed at once. Clients that connect wait 5 s for replies.
	return pace{lead: 80 * time.Millisecond, longest: 600 * time.Millisecond, cycle: 4 * time.Second}
}

// slot is from one turn of that length to the next relay's.
func (p pace) slot(length time.Duration) time.Duration { return p.lead + length + turnDrain }

// inTurns says whether relays take turns at the point: where traffic has no schedule of its own.
func (p Point) inTurns() bool {
	switch p.Scenario {
	case "bulk":
		return p.Connections <= turnStreams
	case "rr", "cps":
		return p.Connections <= turnConnections && p.Reply <= turnReply
	}
	return false
}

// turns says how many turns each of so many relays has, and how long they are, so that they make
// up the window.
func (p pace) turns(relays int, window time.Duration) (n int, length time.Duration) {
	if relays == 1 {
		return 1, window
	}
	longest := max(min(p.longest, p.cycle/time.Duration(relays)-p.slot(0)), leastTurn)
	n = int((window + longest - 1) / longest)
	return n, window / time.Duration(n)
}

// timetable is when which relay has its turns.
type timetable struct {
	pace
	begin         time.Time
	relays, turns int
	length        time.Duration // of what counts of a turn
}

// at is when the client of the relay with that number begins to work for its turn.
func (t timetable) at(turn, relay int) time.Time {
	return t.begin.Add(time.Duration(turn*t.relays+relay) * t.slot(t.length))
}

// window is what a relay's workers count.
func (t timetable) window(relay int) worker.Window {
	return worker.Window{
		From: t.at(0, relay).Add(t.lead), To: t.at(t.turns-1, relay).Add(t.lead + t.length),
		Every: time.Duration(t.relays) * t.slot(t.length), Part: t.length, Settle: t.lead,
	}
}

// takeTurns measures relays at a point at which they take turns. tell is called before each is
// set up.
func (d *Driver) takeTurns(ctx context.Context, p Plan, steps []Step, tell func(i int)) (runs []Run) {
	limit := 2*p.sum(steps) + 2*time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took more than %v", limit))
	defer cancel()
	var all, ready []*bed
	for i, s := range steps {
		tell(i)
		b := d.bed(p, s, 0)
		b.err = b.make(ctx)
		all = append(all, b)
	}
	for _, b := range all {
		if b.try(func() error { return b.startClient(ctx) }) && b.try(b.pause) {
			ready = append(ready, b)
		}
	}
	if len(ready) > 0 {
		p.haveTurns(ctx, ready)
	}
	for _, b := range all {
		runs = append(runs, b.end(ctx))
	}
	return runs
}

// haveTurns measures relays whose clients are ready, and stopped.
func (p Plan) haveTurns(ctx context.Context, beds []*bed) {
	warmUp := max(p.WarmUp, lead)
	t := timetable{
		pace: beds[0].step.Point.pace(),
		// Each is told of its window in time also where telling those before it took long.
		begin: time.Now().Add(time.Duration(len(beds)) * (warmUp + lead)), relays: len(beds),
	}
	t.turns, t.length = t.pace.turns(len(beds), p.Window)
	for number, b := range beds {
		b.try(func() error { return b.warm(ctx, t.window(number), warmUp) })
	}
	for turn := range t.turns {
		for number, b := range beds {
			at := t.at(turn, number)
			b.try(func() error { return b.turn(ctx, at, at.Add(t.lead), at.Add(t.lead+t.length)) })
		}
	}
	for _, b := range beds {
		b.try(func() error {
			if err := b.resume(); err != nil {
				return err
			}
			m, err := b.counted(time.Duration(t.turns)*t.length, b.used)
			if err != nil {
				return err
			}
			return b.fill(b.found, m)
		})
	}
}

// try does something if nothing has failed yet, and reports whether that is still so.
func (b *bed) try(do func() error) bool {
	if b.err == nil {
		b.err = do()
	}
	return b.err == nil
}

// active is who is stopped between turns: who asks, or sends.
func (b *bed) active() *worker.Worker {
	if b.step.Point.Down {
		return b.servers[0]
	}
	return b.clients[0]
}

func (b *bed) pause() error  { return b.active().Pause() }
func (b *bed) resume() error { return b.active().Resume() }

// warm tells the workers of their window, and lets the client work for a while.
func (b *bed) warm(ctx context.Context, w worker.Window, warmUp time.Duration) error {
	if err := b.measure(w); err != nil {
		return err
	}
	if err := b.resume(); err != nil {
		return err
	}
	if err := sleepUntil(ctx, time.Now().Add(warmUp)); err != nil {
		return err
	}
	return b.pause()
}

// turn lets the client work from then on, and adds up what is used while it counts.
func (b *bed) turn(ctx context.Context, at, from, to time.Time) error {
	if err := sleepUntil(ctx, at); err != nil {
		return err
	}
	if err := b.resume(); err != nil {
		return err
	}
	used, err := b.usedBetween(ctx, from, to)
	if err != nil {
		return err
	}
	b.used = b.used.plus(used)
	return b.pause()
}
