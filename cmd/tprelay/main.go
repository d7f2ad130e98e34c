// Command tprelay is a transparent TCP relay. tprelay run relays connections, and tprelay
// rules sets up the packet filter rules that divert connections to it.
//
// The exit status is 0 on success, 1 on failure, and 2 for a wrong command line. An error is
// one line on standard error that says what failed, on what, and what to do.
package main

import (
	"io"
	"os"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/internal/cli"
)

// commands are the subcommands.
type commands struct {
	Run     runCmd     `cmd:"" help:"Relay connections until stopped by a signal."`
	Rules   rulesCmd   `cmd:"" help:"Print, apply, verify or remove the rules that divert connections to the relay."`
	Version versionCmd `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

func main() {
	os.Exit(program(os.Args[1:], os.Stdout, os.Stderr))
}

// program runs the command that args name and returns the exit status.
func program(args []string, stdout, stderr io.Writer) int {
	log := newLogQueue(stderr)
	defer log.close(logPatience)
	return application(log).Run(new(commands), args, stdout, log)
}

// application describes the command line. log is the program's standard error.
func application(log *logQueue) cli.Application {
	return cli.Application{
		Name: "tprelay",
		Description: "A transparent TCP relay: it accepts diverted connections, opens a second connection to the original " +
			"destination under the client's address, and moves the bytes, never faster than the receiver takes them.",
		Options: []kong.Option{
			kong.Vars{"version": version()},
			kong.Bind(log),
			kong.PostBuild(hideFlags),
			kong.ExplicitGroups([]kong.Group{
				{Key: "connections", Title: "Connections:"},
				{Key: "access", Title: "Access control:"},
				{Key: "bytes", Title: "Data path:"},
				{Key: "limits", Title: "Limits and timeouts (durations such as 500ms, 30s, 2h; sizes such as 65536, 64KiB, 1MiB, 64KB):"},
				{Key: "cpu", Title: "CPU time:"},
				{Key: "logs", Title: "Logs and monitoring:"},
			}),
		},
	}
}
