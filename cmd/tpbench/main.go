// Command tpbench measures TCP relays on three hosts in network namespaces. tpbench demo shows the
// effect of flow control, tpbench slow and tpbench probe measure behind a slow link, tpbench
// compare compares relays, and tpbench report makes a page of its results.
//
// The exit status is 0 on success, 1 on failure, and 2 for a wrong command line. An error is one
// line on standard error.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/cli"
)

// commands are the subcommands.
type commands struct {
	Demo     demoCmd     `cmd:"" help:"Send through a slow link directly, through tprelay, and through tprelay without flow control. Takes under a minute; needs no privileges."`
	Slow     slowCmd     `cmd:"" help:"Measure relays behind a slow link or before a slow receiver: the rate that the sender sees, settle time, delay, excess in flight."`
	Probe    probeCmd    `cmd:"" help:"Sample one transfer through tprelay: pending bytes, pauses, and TCP's windows on both sides."`
	Compare  compareCmd  `cmd:"" help:"Compare relays: throughput, requests, connections, memory, CPU time. Needs no privileges."`
	Report   reportCmd   `cmd:"" help:"Make a page with plots from the results of compare --out."`
	Document documentCmd `cmd:"" hidden:"" help:"Measure and write the figures of docs/flow-control.md."`
	Worker   workerCmd   `cmd:"" hidden:"" help:"Be an end of a comparison."`
	Relay    relayCmd    `cmd:"" hidden:"" help:"Be a relay that others are compared to."`
}

func main() {
	os.Exit(program(os.Args[1:], os.Stdout, os.Stderr))
}

// program runs the command line args and returns the exit status.
func program(args []string, stdout, stderr io.Writer) int {
	return cli.Application{
		Name: "tpbench", Description: "Measures TCP relays.",
		Options: []kong.Option{kong.Vars{"relay_command": relays.CommandHelp}},
	}.Run(new(commands), args, stdout, stderr)
}

// interruptible returns a context that SIGINT, SIGTERM and SIGHUP end, so that a measurement can
// clean up. A second signal ends the process at once.
func interruptible() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
