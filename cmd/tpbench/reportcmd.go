package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/output"
)

// reportCmd is tpbench report.
type reportCmd struct {
	Dir string `arg:"" help:"Directory that tpbench compare --out has written."`
}

// Run writes the page into the directory, and says where it is.
func (c *reportCmd) Run(command *kong.Context) error {
	path, err := output.WriteReport(c.Dir)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	fmt.Fprintln(command.Stdout, path)
	return nil
}
