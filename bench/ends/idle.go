package ends

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// lastLimit is how long the last replies of idle connections may take.
const lastLimit = 5 * time.Second

// idler is the worker that holds connections, and does nothing on them until the
// window is over: then each has to prove that it lives, by one more reply.
type idler struct {
	*population
	answered atomic.Uint64
}

func newIdler(job Job, c clock) *idler {
	i := &idler{}
	i.population = newPopulation(job, c, func(*member, time.Duration) { i.answered.Add(1) })
	return i
}

func (i *idler) begin(Window) {}

func (i *idler) arrived() uint64 { return 0 }

func (i *idler) finish(ctx context.Context, r *Result) {
	i.sendAll()
	limit := i.clock.now() + lastLimit
	for i.answered.Load()+i.faults.count.Load() < uint64(len(i.members)) && i.clock.now() < limit {
		if i.clock.sleepUntil(ctx, i.clock.now()+5*time.Millisecond) != nil {
			break
		}
	}
	i.stop()
	for _, m := range i.members { // nobody else has them now
		if m.left > 0 {
			i.lose(m, errors.New("connection is dead: no reply after the window"))
		}
	}
	i.population.finish(r)
}

func (i *idler) close() { i.stop() }
