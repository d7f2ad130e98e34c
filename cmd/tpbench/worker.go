package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/ends"
)

// workerCmd is tpbench worker, one end of a comparison: tpbench compare starts it.
type workerCmd struct{}

// Run does what standard input says.
func (workerCmd) Run(command *kong.Context) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := ends.Work(ctx, os.Stdin, command.Stdout); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}
