package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/cli"
)

// loadCmd is tpbench load.
type loadCmd struct {
	Target      targetFlag    `arg:"" help:"Address and port to send to."`
	Seconds     float64       `default:"10" help:"How long to send."`
	Bytes       units.Size    `default:"0" help:"How much to send, on all connections together, instead of --seconds: 100MB, 1GiB."`
	Connections int           `default:"1" help:"Connections at a time."`
	Block       units.Size    `default:"64KiB" help:"Bytes per write."`
	Echo        bool          `help:"The other end sends everything back: wait for it before closing."`
	Drain       time.Duration `default:"10s" help:"How long to wait, once all is sent, until the other end has it; 0: do not wait but reset."`
	JSON        bool          `name:"json" help:"Print JSON, one object per line."`
}

// targetFlag is an address and a port.
type targetFlag struct{ netip.AddrPort }

// UnmarshalText reads ADDR:PORT.
func (t *targetFlag) UnmarshalText(text []byte) error {
	address, err := netip.ParseAddrPort(string(text))
	if err != nil || address.Port() == 0 {
		return fmt.Errorf("%q: want ADDR:PORT with an IP address, such as 10.0.0.1:5201", text)
	}
	t.AddrPort = address
	return nil
}

func (c *loadCmd) check() error {
	switch {
	case c.Bytes == 0 && (c.Seconds <= 0 || c.Seconds > 1e6):
		return cli.Usagef("--seconds %g: must be more than 0 and at most 1000000", c.Seconds)
	case c.Connections < 1 || c.Connections > 60000:
		return cli.Usagef("--connections %d: must be between 1 and 60000", c.Connections)
	case c.Block < 1 || c.Block > 64<<20:
		return cli.Usagef("--block %d: must be between 1 byte and 64 MiB", c.Block)
	case c.Drain < 0:
		return cli.Usagef("--drain %v: must not be negative", c.Drain)
	}
	return nil
}

// Run sends, and tells how it went.
func (c *loadCmd) Run(command *kong.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := &printer{to: command.Stdout, json: c.JSON}
	s := sender{target: c.Target.AddrPort, connections: c.Connections, block: int(c.Block), echo: c.Echo, drain: c.Drain, meter: meter{out: out}}
	if c.Bytes > 0 {
		s.bytes = int64(c.Bytes)
	} else {
		s.length = time.Duration(c.Seconds * float64(time.Second))
	}
	err := s.run(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("load %v: %w", c.Target, err)
	}
	return out.failed()
}
