package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/bottleneck"
	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab"
)

// probeCmd is tpbench probe.
type probeCmd struct {
	JSON string `name:"json" placeholder:"FILE" default:"-" help:"File for one line of JSON per sample. Default: standard output."`
	transferFlags
}

// Run measures one transfer, and prints its samples.
func (c *probeCmd) Run(command *kong.Context) error {
	if err := errors.Join(c.check(), checkFile("--json", c.JSON)); err != nil {
		return err
	}
	if c.Plot == "-" && c.JSON == "-" {
		return cli.Usagef("--plot -: say with --json FILE where the samples go instead")
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	setup, err := c.setup()
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if setup.TPRelay, err = findTPRelay(c.TPRelay); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	peer, err := relays.Find("tprelay", "")
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()

	person := command.Stdout
	if c.JSON == "-" || c.Plot == "-" {
		person = command.Stderr
	}
	var m *bottleneck.Measured
	err = writeTo(c.JSON, command.Stdout, func(w io.Writer) error {
		buffered := bufio.NewWriter(w)
		out := json.NewEncoder(buffered)
		m, err = setup.Run(ctx, peer, func(s bottleneck.Sample) {
			_ = out.Encode(s) // what fails here fails at Flush again
			_ = buffered.Flush()
		})
		return errors.Join(err, buffered.Flush())
	})
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	m.Round = 1
	result := &bottleneck.Comparison{Settings: setup.Settings(), Relays: []bottleneck.Name{{Name: peer.Name, Title: peer.Title}}, Runs: []*bottleneck.Measured{m}}
	result.Settings.Command = commandLine(command.Args)
	if setup.Path.Note != "" {
		result.Notes = append(result.Notes, setup.Path.Note)
	}
	if c.Plot != "" {
		if err := writeTo(c.Plot, command.Stdout, result.HTML); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
	}
	for _, note := range result.Notes {
		fmt.Fprintln(person, note)
	}
	fmt.Fprintln(person, m.Figures)
	return nil
}
