// Command tprelay relays TCP connections that a router or packet filter hands to
// it: tprelay run is the relay, tprelay rules sets up what hands them over.
//
// It exits with status 0 when all went well, 1 when something failed, and 2 when
// it was called wrongly. Errors are one line on standard error that says what
// failed, on what, and what to do.
package main

import (
	"io"
	"os"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/internal/cli"
)

// commands are the subcommands.
type commands struct {
	Run     runCmd     `cmd:"" help:"Relay connections until told to stop."`
	Rules   rulesCmd   `cmd:"" help:"Print, apply, verify or remove the rules that divert connections to the relay."`
	Version versionCmd `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

func main() {
	os.Exit(program(os.Args[1:], os.Stdout, os.Stderr))
}

// program runs the command line args and returns the exit status.
func program(args []string, stdout, stderr io.Writer) int {
	log := newLogQueue(stderr)
	defer log.close(logPatience)
	return application(log).Run(new(commands), args, stdout, log)
}

// application is the program; log is its standard error.
func application(log *logQueue) cli.Application {
	return cli.Application{
		Name: "tprelay",
		Description: "A transparent TCP relay: it takes connections that were meant for somebody else, opens a second one " +
			"to the original destination, in the client's name, and moves the bytes, never faster than the receiver takes them.",
		Options: []kong.Option{
			kong.Vars{"version": version()},
			kong.Bind(log),
			kong.PostBuild(hideFlags),
			kong.ExplicitGroups([]kong.Group{
				{Key: "connections", Title: "Connections:"},
				{Key: "bytes", Title: "Bytes:"},
				{Key: "limits", Title: "Limits and timeouts (durations such as 500ms, 30s, 2h; sizes such as 65536, 64KiB, 1MiB, 64KB):"},
				{Key: "logs", Title: "Logs:"},
			}),
		},
	}
}
