// Package client is the client's side of a measurement: tasks for package worker that open
// connections to the server of package server, or to a relay before it.
package client

import (
	"github.com/tprelay/tprelay/bench/worker"
)

// New makes the task of a job of any kind but worker.Serve.
func New(job worker.Job) worker.Task {
	switch job.Kind {
	case worker.RR:
		return newRequester(job)
	case worker.CPS:
		return newConnector(job)
	case worker.Idle:
		return newIdler(job)
	}
	return newStreams(job)
}
