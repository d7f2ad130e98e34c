package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/internal/netlab"
)

// documentCmd is tpbench document, which measures what docs/flow-control.md shows. It is run in
// the project's directory, by make flow-plots.
type documentCmd struct {
	pathFlags
	Seconds int    `default:"15" help:"Length of each transfer."`
	Page    string `default:"docs/flow-control.md" help:"The page whose tables are written."`
	Out     string `default:"docs/plots" help:"Where the plots go, and figures.json."`
	Level   string `default:"mininet/level.py" help:"The level-triggered relay."`
	TPRelay string `name:"tprelay" placeholder:"PATH" help:"The tprelay program. Default: the one beside tpbench, otherwise the one in PATH."`
}

// Run measures, and writes page and plots.
func (c *documentCmd) Run(command *kong.Context) error {
	flags := transferFlags{pathFlags: c.pathFlags, Seconds: c.Seconds, Interval: 50 * time.Millisecond, Reader: "link", Unsent: 16 << 10}
	if err := flags.check(); err != nil {
		return err
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	setup, err := flags.setup()
	if err == nil {
		setup.TPRelay, err = findTPRelay(c.TPRelay)
	}
	level := ""
	if err == nil {
		level, err = filepath.Abs(c.Level)
	}
	if err != nil {
		return fmt.Errorf("document: %w", err)
	}
	setup.Ordinary, setup.Again = true, 2
	ctx, stop := interruptible()
	defer stop()
	p := newProgress(command.Stderr)
	d, err := setup.Document(ctx, level, p.step)
	p.clear()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("document: %w", err)
	}
	d.Notes = append(c.Note, d.Notes...)
	written, err := d.Write(c.Page, c.Out)
	if err != nil {
		return fmt.Errorf("document: %w", err)
	}
	for _, name := range written {
		fmt.Fprintln(command.Stdout, name)
	}
	return nil
}
