// Command tpbench measures TCP relays, on three hosts that it makes by itself: tpbench demo
// shows what flow control is for; tpbench slow and tpbench probe look closely at what
// happens behind a slow link; tpbench compare measures relays against each other, and
// tpbench report makes a page of it.
//
// It exits with status 0 when all went well, 1 when something failed, and 2 when
// it was called wrongly. Errors are one line on standard error.
package main

import (
	"io"
	"os"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/cli"
)

// commands are the subcommands.
type commands struct {
	Demo     demoCmd     `cmd:"" help:"Send through a slow link directly, through tprelay, and through tprelay without flow control. Needs no privileges, takes under a minute."`
	Slow     slowCmd     `cmd:"" help:"Measure what relays do behind a slow link or before a slow receiver: what the sender sees, settle time, delay, excess in flight."`
	Probe    probeCmd    `cmd:"" help:"Look closely at one transfer through tprelay: what waits in it, when it pauses, and TCP's windows on both sides."`
	Compare  compareCmd  `cmd:"" help:"Measure relays against each other: throughput, requests, connections, memory, CPU time. Needs no privileges."`
	Report   reportCmd   `cmd:"" help:"Make a page with plots of what compare --out has written."`
	Document documentCmd `cmd:"" hidden:"" help:"Measure and write the figures of docs/flow-control.md."`
	Worker   workerCmd   `cmd:"" hidden:"" help:"Be an end of a comparison."`
	Peer     peerCmd     `cmd:"" hidden:"" help:"Be a relay that others are compared to."`
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
