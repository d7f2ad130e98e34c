package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/client"
	benchserver "github.com/tprelay/tprelay/bench/server"
	"github.com/tprelay/tprelay/bench/worker"
)

// workerCmd is tpbench worker, a client or the server of a comparison: tpbench compare starts it.
type workerCmd struct{}

// Run takes its orders from standard input.
func (workerCmd) Run(command *kong.Context) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	newTask := func(job worker.Job, fail func(error)) worker.Task {
		if job.Kind == worker.Serve {
			return benchserver.New(job, fail)
		}
		return client.New(job)
	}
	if err := worker.Work(ctx, os.Stdin, command.Stdout, newTask); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}
