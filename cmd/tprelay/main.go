// Command tprelay relays TCP connections that a router or packet filter hands to
// it: tprelay run is the relay, tprelay rules sets up what hands them over.
//
// It exits with status 0 when all went well, 1 when something failed, and 2 when
// it was called wrongly. Errors are one line on standard error that says what
// failed, on what, and what to do.
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
	Run     runCmd     `cmd:"" help:"Relay connections until told to stop."`
	Rules   rulesCmd   `cmd:"" help:"Print, apply, verify or remove the rules that divert connections to the relay."`
	Version versionCmd `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
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
	printed := -1 // the status that --help or --version asked for
	parser, err := newParser(new(cli), stdout, stderr, func(status int) { printed = status })
	if err != nil {
		return report(stderr, fmt.Errorf("command line definition: %w", err))
	}
	command, err := parser.Parse(args)
	if printed >= 0 {
		return printed
	}
	if err != nil {
		return report(stderr, usageError{fmt.Errorf("%w; see %s --help", err, commandOf(err))})
	}
	return report(stderr, command.Run())
}

func newParser(c *cli, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("tprelay"),
		kong.Description("A transparent TCP relay: it takes connections that were meant for somebody else, opens a second one "+
			"to the original destination, in the client's name, and moves the bytes, never faster than the receiver takes them."),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.Vars{"version": version()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "connections", Title: "Connections:"},
			{Key: "bytes", Title: "Bytes:"},
			{Key: "limits", Title: "Limits and timeouts (durations such as 500ms, 30s, 2h; sizes such as 65536, 64KiB, 1MiB, 64KB):"},
			{Key: "logs", Title: "Logs:"},
		}),
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
	return "tprelay"
}

// report writes err, if any, in one line and gives the exit status for it.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "tprelay: %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}
