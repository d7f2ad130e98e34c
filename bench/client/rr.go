package client

import (
	"context"
	"time"

	"github.com/tprelay/tprelay/bench/worker"
)

// requester sends requests on connections that stay open.
//
// In the closed loop, the latency of a request begins when it is written. For the open loop see
// pacer.
type requester struct {
	*connections
	counter worker.Counter
	pacer   *pacer // nil: closed loop
}

func newRequester(job worker.Job) *requester {
	r := &requester{}
	r.connections = newConnections(job, r.replied)
	r.counter.Clock = r.clock
	return r
}

func (r *requester) SetUp(ctx context.Context) error {
	if err := r.connections.SetUp(ctx); err != nil {
		return err
	}
	if r.job.Rate > 0 {
		r.pacer = newPacer(r.connections, r.job.Rate)
		r.pacer.start()
		return nil
	}
	r.sendAll()
	return nil
}

func (r *requester) replied(m *member, now time.Duration) {
	r.counter.Replied(m.loop.tally, m.first, now)
	if r.pacer != nil {
		r.pacer.replied(m, now, m.loop.request)
	} else {
		r.send(m, now, now, m.loop.request)
	}
}

func (r *requester) Begin(w worker.Window) { r.counter.Begin(w) }

func (r *requester) Finish(_ context.Context, result *worker.Result) {
	if r.pacer != nil {
		r.pacer.stop()
	}
	// While the client is stopped, it sees no reply.
	r.report(result, replyLimit+r.counter.Paused())
	result.Merge(r.tallies())
	if r.pacer == nil {
		result.ExpectRequests()
	}
}

func (r *requester) Close() {
	if r.pacer != nil {
		r.pacer.stop()
	}
	r.stop()
}
