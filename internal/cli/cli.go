// Package cli has the common part of this project's command lines: subcommands and flags by
// kong, one line on standard error for an error, and the exit status.
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
	Failure // the command failed
	Usage   // the command line was wrong
)

// usageError is an error in the command line. It ends the program with status Usage.
type usageError struct{ error }

// Unwrap returns the wrapped error.
func (u usageError) Unwrap() error { return u.error }

// Usagef is fmt.Errorf for an error in the command line.
func Usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// IsUsage reports whether err is, or wraps, an error of Usagef.
func IsUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage)
}

// Application is a program with subcommands.
type Application struct {
	Name        string
	Description string
	// Options for kong, in addition to those that all applications have.
	Options []kong.Option
}

// Parser returns a parser for grammar, a pointer to a struct with kong's tags. --help and
// --version call exit with their status. Empty values are errors.
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

// Run runs the command that args name and returns the exit status. It prints an error as one
// line on stderr.
func (a Application) Run(grammar any, args []string, stdout, stderr io.Writer) int {
	printed := -1 // the exit status of --help or --version
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

// commandOf returns the name of the command that a parse error is about, for the hint.
func (a Application) commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return node.FullPath()
		}
	}
	return a.Name
}

// report prints err, if any, in one line and returns the exit status for it.
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
