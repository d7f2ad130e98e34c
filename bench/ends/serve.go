package ends

import (
	"context"
)

// server is the worker that serves.
type server struct {
	job    Job
	faults faults
	fail   func(error)
	reply  *replyServer
	bulk   *bulkServer
}

func (s *server) setUp(context.Context) (err error) {
	if s.reply, err = startReplyServer(s.job.Address, s.job.Threads, &s.faults); err != nil {
		return err
	}
	go func() {
		<-s.reply.ended
		s.fail(s.reply.err)
	}()
	s.bulk, err = startBulkServer(s.job.bulkAddress(), &s.faults, s.fail)
	return err
}

func (s *server) begin(Window) {}

func (s *server) arrived() uint64 { return s.bulk.arrived.Load() }

func (s *server) finish(_ context.Context, r *Result) { s.faults.tell(r) }

func (s *server) close() {
	if s.reply != nil {
		s.reply.stop()
	}
	if s.bulk != nil {
		s.bulk.stop()
	}
}
