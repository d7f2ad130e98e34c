package ends

import (
	"context"
	"time"
)

// requester is the worker of request and response.
//
// In the closed loop, a request's latency begins when it is written. In the open loop
// see pacer.
type requester struct {
	*population
	counting
	pacer *pacer // nil: closed loop
}

func newRequester(job Job, c clock) *requester {
	r := &requester{}
	r.population = newPopulation(job, c, r.replied)
	return r
}

func (r *requester) setUp(ctx context.Context) error {
	if err := r.population.setUp(ctx); err != nil {
		return err
	}
	if r.job.Rate > 0 {
		r.pacer = newPacer(r.population, r.job.Rate)
		r.pacer.start()
		return nil
	}
	r.sendAll()
	return nil
}

func (r *requester) replied(m *member, now time.Duration) {
	r.counting.replied(m.loop.tally, m.first, now)
	if r.pacer != nil {
		r.pacer.replied(m, now, m.loop.request)
	} else {
		r.send(m, now, now, m.loop.request)
	}
}

func (r *requester) begin(w Window) { r.counting.begin(r.clock.span(w)) }

func (r *requester) finish(_ context.Context, result *Result) {
	if r.pacer != nil {
		r.pacer.stop()
	}
	patience := replyLimit
	if s := r.now.Load(); s != nil {
		patience += s.every // stopped, it sees no reply
	}
	r.population.finish(result, patience)
	merge(r.tallies(), result)
	if r.pacer == nil {
		silence(result)
	}
}

func (r *requester) close() {
	if r.pacer != nil {
		r.pacer.stop()
	}
	r.stop()
}

// silence: that nothing was answered in all the window is an error, whatever else
// went well.
func silence(r *Result) {
	if r.Requests == 0 && r.Errors == 0 {
		r.Errors, r.Error = 1, "no request was answered in the window"
	}
}
