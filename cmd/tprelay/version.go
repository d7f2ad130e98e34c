package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(command *kong.Context) error {
	_, err := fmt.Fprintln(command.Stdout, version())
	return err
}

// version returns the program's version, revision, and the Go release that built it.
func version() string {
	release, revision := "(unknown)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		release = info.Main.Version
		if release == "" {
			release = "(devel)"
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	return fmt.Sprintf("tprelay %s%s %s %s/%s", release, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
