// Package server is the server's side of a measurement: a task for package worker that answers
// requests on one port, and takes or sends streams on the next.
package server

import (
	"context"

	"github.com/tprelay/tprelay/bench/worker"
)

// server is the task of kind Serve.
type server struct {
	job     worker.Job
	faults  worker.Faults
	fail    func(error)
	replies *replyServer
	streams *streamServer
	counter worker.Counter
}

// New makes the task of a job of kind worker.Serve. It calls fail when it cannot go on.
func New(job worker.Job, fail func(error)) worker.Task {
	return &server{job: job, fail: fail, counter: worker.Counter{Clock: worker.NewClock()}}
}

func (s *server) SetUp(context.Context) (err error) {
	if s.replies, err = startReplyServer(s.job.Address, s.job.Threads, &s.faults); err != nil {
		return err
	}
	go func() {
		<-s.replies.ended
		s.fail(s.replies.err)
	}()
	s.streams, err = startStreamServer(s.job.StreamAddress(), &s.faults, s.counter.Arrived, s.fail)
	return err
}

func (s *server) Begin(w worker.Window) { s.counter.Begin(w) }

func (s *server) Finish(_ context.Context, r *worker.Result) {
	r.Bytes = s.counter.Bytes()
	s.faults.Report(r)
}

func (s *server) Close() {
	if s.replies != nil {
		s.replies.stop()
	}
	if s.streams != nil {
		s.streams.stop()
	}
}
