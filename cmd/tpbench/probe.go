package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/bench/peers"
	"github.com/tprelay/tprelay/internal/netlab"
)

// probeCmd is tpbench probe.
type probeCmd struct {
	transferFlags
}

// Run measures one transfer, and prints its samples.
func (c *probeCmd) Run(command *kong.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	setup := c.setup()
	var err error
	if setup.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("probe: path of this program: %w", err)
	}
	if setup.TPRelay, err = findTPRelay(c.TPRelay); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	peer, err := peers.Find("tprelay", "")
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once

	lines, person := "-", command.Stderr
	if c.JSON != "" && c.JSON != "-" {
		lines, person = c.JSON, command.Stdout
	}
	var m *flow.Measured
	err = writeTo(lines, command.Stdout, func(w io.Writer) error {
		buffered := bufio.NewWriter(w)
		out := json.NewEncoder(buffered)
		m, err = setup.Run(ctx, peer, func(s flow.Sample) {
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
	fmt.Fprintln(person, m.Figures)
	return nil
}
