// Package cli is what the programs of this project have in common on their command
// lines: subcommands and flags by kong, one line on standard error for an error, and
// the exit status that goes with it.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit statuses.
const (
	OK      = iota
	Failure // something failed
	Usage   // the program was called wrongly
)

// usageError is an error of the caller's: it ends the program with status Usage.
type usageError struct{ error }

// Unwrap gives the error without its meaning for the exit status.
func (u usageError) Unwrap() error { return u.error }

// Usagef is fmt.Errorf for an error of the caller's.
func Usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// IsUsage: err is, or wraps, an error of the caller's.
func IsUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage)
}

// Application is a program with subcommands.
type Application struct {
	Name        string
	Description string
	// Options of kong's, beyond those that all applications have.
	Options []kong.Option
}

// Parser makes a parser for grammar, a pointer to a struct with kong's tags. exit is
// called with the status that --help or --version ask for. Empty values are errors.
func (a Application) Parser(grammar any, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	parser, err := kong.New(grammar, append([]kong.Option{
		kong.Name(a.Name),
		kong.Description(a.Description),
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
	}, a.Options...)...)
	if err != nil {
		return nil, err
	}
	refuseEmpty(parser.Model.Node)
	return parser, nil
}

// Run runs the command that args name and returns the exit status. An error is one
// line on stderr.
func (a Application) Run(grammar any, args []string, stdout, stderr io.Writer) int {
	printed := -1 // the status that --help or --version asked for
	parser, err := a.Parser(grammar, stdout, stderr, func(status int) { printed = status })
	if err != nil {
		return a.report(stderr, fmt.Errorf("command line definition: %w", err))
	}
	command, err := parser.Parse(args)
	if printed >= 0 {
		return printed
	}
	if err != nil {
		return a.report(stderr, Usagef("%w; see %s --help", err, a.commandOf(err)))
	}
	return a.report(stderr, command.Run())
}

// commandOf names the command that a parse error is about, for the hint.
func (a Application) commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return node.FullPath()
		}
	}
	return a.Name
}

// report writes err, if any, in one line and gives the exit status for it.
func (a Application) report(stderr io.Writer, err error) int {
	if err == nil {
		return OK
	}
	fmt.Fprintf(stderr, "%s: %s\n", a.Name, strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	if IsUsage(err) {
		return Usage
	}
	return Failure
}
