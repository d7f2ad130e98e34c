// Command tpbench measures TCP relays: tpbench demo shows what flow control is
// for, on three hosts that it makes up by itself; tpbench slow and tpbench probe look
// closely at what happens there behind a slow link; tpbench compare measures relays
// against each other, and tpbench report makes a page of it; tpbench serve and
// tpbench load are the two ends of a measurement, with any relay between them, or none.
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
	Demo    demoCmd    `cmd:"" help:"Show a bottleneck directly, behind the relay, and behind the relay without flow control. Needs no privileges, takes under a minute."`
	Slow    slowCmd    `cmd:"" help:"Measure what relays do behind a slow link or before a slow receiver: what the sender sees, delay, what they swallow."`
	Probe   probeCmd   `cmd:"" help:"Look closely at one transfer through tprelay: what waits in it, when it pauses, and TCP's windows on both sides."`
	Compare compareCmd `cmd:"" help:"Measure relays against each other: throughput, requests, connections, memory, CPU time. Needs no privileges."`
	Report  reportCmd  `cmd:"" help:"Make a page with plots of what compare --out has written."`
	Serve   serveCmd   `cmd:"" help:"Be the receiving end: take what comes, and count it or send it back."`
	Load    loadCmd    `cmd:"" help:"Be the sending end: send as fast as the connection takes."`
	Relay   relayCmd   `cmd:"" hidden:"" help:"Be the relay of the demo."`
	Worker  workerCmd  `cmd:"" hidden:"" help:"Be an end of a comparison."`
	Peer    peerCmd    `cmd:"" hidden:"" help:"Be a relay that others are compared to."`
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
