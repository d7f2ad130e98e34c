package ends

import (
	"context"
)

// server is the worker that serves.
type server struct {
	job    Job
	clock  clock
	faults faults
	fail   func(error)
	reply  *replyServer
	bulk   *bulkServer
	counting
}

func (s *server) setUp(context.Context) (err error) {
	if s.reply, err = startReplyServer(s.job.Address, s.job.Threads, &s.faults); err != nil {
		return err
	}
	go func() {
		<-s.reply.ended
		s.fail(s.reply.err)
	}()
	s.bulk, err = startBulkServer(s.job.bulkAddress(), &s.faults, s.came, s.fail)
	return err
}

func (s *server) came(n int) { s.arrive(s.clock.now(), n) }

func (s *server) begin(w Window) { s.counting.begin(s.clock.span(w)) }

func (s *server) finish(_ context.Context, r *Result) {
	r.Bytes = s.counting.count.Load()
	s.faults.tell(r)
}

func (s *server) close() {
	if s.reply != nil {
		s.reply.stop()
	}
	if s.bulk != nil {
		s.bulk.stop()
	}
}
