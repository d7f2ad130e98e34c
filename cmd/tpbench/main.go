// Command tpbench measures TCP relays: tpbench demo shows what flow control is
// for, on three hosts that it makes up by itself; tpbench serve and tpbench load
// are the two ends of a measurement, with any relay between them, or none.
//
// It exits with status 0 when all went well, 1 when something failed, and 2 when
// it was called wrongly. Errors are one line on standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit statuses.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

type cli struct {
	Demo  demoCmd  `cmd:"" help:"Show a bottleneck directly, behind the relay, and behind the relay without flow control. Needs no privileges, takes under a minute."`
	Serve serveCmd `cmd:"" help:"Be the receiving end: take what comes, and count it or send it back."`
	Load  loadCmd  `cmd:"" help:"Be the sending end: send as fast as the connection takes."`
	Relay relayCmd `cmd:"" hidden:"" help:"Be the relay of the demo."`
}

// usageError is an error of the caller's: it ends the program with status 2.
type usageError struct{ error }

// Unwrap gives the error without its meaning for the exit status.
func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func main() {
	os.Exit(program(os.Args[1:], os.Stdout, os.Stderr))
}

// program runs the command line args and returns the exit status.
func program(args []string, stdout, stderr io.Writer) int {
	printed := -1 // the status that --help asked for
	parser, err := newParser(new(cli), stdout, stderr, func(status int) { printed = status })
	if err != nil {
		return complain(stderr, fmt.Errorf("command line definition: %w", err))
	}
	command, err := parser.Parse(args)
	if printed >= 0 {
		return printed
	}
	if err != nil {
		return complain(stderr, usageError{fmt.Errorf("%w; see %s --help", err, commandOf(err))})
	}
	return complain(stderr, command.Run())
}

func newParser(c *cli, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("tpbench"),
		kong.Description("Measures TCP relays."),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
	)
}

// commandOf names the command that a parse error is about, for the hint.
func commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return node.FullPath()
		}
	}
	return "tpbench"
}

// complain writes err, if any, in one line and gives the exit status for it.
func complain(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "tpbench: %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}
