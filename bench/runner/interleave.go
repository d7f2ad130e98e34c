package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/worker"
)

// The speed of a machine changes while it is measured; that of a virtual one by half from one
// second to the next. So at full speed all relays of a round group are there at the same time, each
// with hosts, clients and servers of its own, and take turns of some tenths of a second. During a
// turn the clients of the other relays are stopped, or the servers where these send. A disturbance
// then meets all relays alike, and hardly shows in the ratios.
//
//	relay 1  settle|counts|          stopped          settle|counts|
//	relay 2        stopped     settle|counts|      stopped
//	                        drain
const (
	// leastTurn is how long a turn counts at least, with any number of relays.
	leastTurn = 50 * time.Millisecond
	// turnDrain is the pause between two turns.
	turnDrain = 10 * time.Millisecond
)

// slot is from one turn of that length to the next relay's.
func slot(t *scenario.Turns, length time.Duration) time.Duration {
	return t.Settle + length + turnDrain
}

// turns says how many turns each of so many relays has, and how long they are, so that they make up
// the window.
func turns(t *scenario.Turns, relays int, window time.Duration) (n int, length time.Duration) {
	if relays == 1 {
		return 1, window
	}
	longest := max(min(t.Longest, t.Cycle/time.Duration(relays)-slot(t, 0)), leastTurn)
	n = int((window + longest - 1) / longest)
	return n, window / time.Duration(n)
}

// timetable is when which relay has its turns.
type timetable struct {
	*scenario.Turns
	begin         time.Time
	relays, turns int
	length        time.Duration // of what counts of a turn
}

// at is when the client of the relay with that number is resumed for its turn.
func (t timetable) at(turn, relay int) time.Time {
	return t.begin.Add(time.Duration(turn*t.relays+relay) * slot(t.Turns, t.length))
}

// window is what the workers of a relay count.
func (t timetable) window(relay int) worker.Window {
	return worker.Window{
		From: t.at(0, relay).Add(t.Settle), To: t.at(t.turns-1, relay).Add(t.Settle + t.length),
		Every: time.Duration(t.relays) * slot(t.Turns, t.length), Part: t.length, Settle: t.Settle,
	}
}

// interleave measures the relays of a round group in turns. tell is called before each is set up.
func (d *Runner) interleave(ctx context.Context, p Plan, steps []Step, tell func(i int)) (runs []stats.Run) {
	limit := 2*p.sum(steps) + 2*time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took more than %v", limit))
	defer cancel()
	var all, ready []*trial
	for i, s := range steps {
		tell(i)
		t := d.trial(p, s)
		t.err = t.SetUp(ctx)
		all = append(all, t)
	}
	for _, t := range all {
		if t.try(func() error { return t.Workload.Scenario.Start(ctx, t.Testbed, t.Workload) }) && t.try(t.pause) {
			ready = append(ready, t)
		}
	}
	if len(ready) > 0 {
		p.haveTurns(ctx, ready)
	}
	for _, t := range all {
		runs = append(runs, t.end(ctx))
	}
	return runs
}

// haveTurns measures relays whose clients are ready and stopped.
func (p Plan) haveTurns(ctx context.Context, trials []*trial) {
	warmUp := max(p.WarmUp, testbed.SettleTime)
	table := timetable{
		Turns: trials[0].Workload.Turns,
		// So that each is told of its window in time, however long telling the others takes.
		begin: time.Now().Add(time.Duration(len(trials)) * (warmUp + testbed.SettleTime)), relays: len(trials),
	}
	table.turns, table.length = turns(table.Turns, len(trials), p.Window)
	for number, t := range trials {
		t.try(func() error { return t.warm(ctx, table.window(number), warmUp) })
	}
	for turn := range table.turns {
		for number, t := range trials {
			at := table.at(turn, number)
			t.try(func() error { return t.turn(ctx, at, at.Add(table.Settle), at.Add(table.Settle+table.length)) })
		}
	}
	for _, t := range trials {
		t.try(func() error {
			if err := t.resume(); err != nil {
				return err
			}
			m, err := t.Counted(time.Duration(table.turns)*table.length, t.used)
			if err != nil {
				return err
			}
			t.figures, err = t.Workload.Scenario.Figures(t.Testbed, t.Workload, m)
			return err
		})
	}
}

// active is the worker that is stopped between turns: the one that asks or sends.
func (t *trial) active() *worker.Worker {
	if t.Workload.Down {
		return t.Servers[0]
	}
	return t.Clients[0]
}

func (t *trial) pause() error  { return t.active().Pause() }
func (t *trial) resume() error { return t.active().Resume() }

// warm tells the workers of their window, and lets the client work for a while.
func (t *trial) warm(ctx context.Context, w worker.Window, warmUp time.Duration) error {
	if err := t.Measure(w); err != nil {
		return err
	}
	if err := t.resume(); err != nil {
		return err
	}
	if err := testbed.SleepUntil(ctx, time.Now().Add(warmUp)); err != nil {
		return err
	}
	return t.pause()
}

// turn lets the client work from at on, and adds up what is used while it counts.
func (t *trial) turn(ctx context.Context, at, from, to time.Time) error {
	if err := testbed.SleepUntil(ctx, at); err != nil {
		return err
	}
	if err := t.resume(); err != nil {
		return err
	}
	used, err := t.UsedBetween(ctx, from, to)
	if err != nil {
		return err
	}
	t.used = t.used.Plus(used)
	return t.pause()
}
