package client

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tprelay/tprelay/bench/worker"
)

// idler holds connections and sends nothing on them until the window is over. Then each has to
// prove that it is alive, by one more reply.
type idler struct {
	*connections
	answered atomic.Uint64
}

func newIdler(job worker.Job) *idler {
	i := &idler{}
	i.connections = newConnections(job, func(*member, time.Duration) { i.answered.Add(1) })
	return i
}

func (i *idler) Begin(worker.Window) {}

func (i *idler) Finish(ctx context.Context, r *worker.Result) {
	i.sendAll()
	limit := i.clock.Now() + replyLimit
	for i.answered.Load()+i.faults.Count() < uint64(len(i.members)) && i.clock.Now() < limit {
		if i.clock.SleepUntil(ctx, i.clock.Now()+5*time.Millisecond) != nil {
			break
		}
	}
	i.report(r, 0)
}

func (i *idler) Close() { i.stop() }
