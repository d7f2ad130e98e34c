package ends

import (
	"context"
	"sync/atomic"
	"time"
)

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

func (i *idler) finish(ctx context.Context, r *Result) {
	i.sendAll()
	limit := i.clock.now() + replyLimit
	for i.answered.Load()+i.faults.count.Load() < uint64(len(i.members)) && i.clock.now() < limit {
		if i.clock.sleepUntil(ctx, i.clock.now()+5*time.Millisecond) != nil {
			break
		}
	}
	i.population.finish(r, 0)
}

func (i *idler) close() { i.stop() }
