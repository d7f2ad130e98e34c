package main

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/internal/cli"
)

// serveCmd is tpbench serve.
type serveCmd struct {
	Listen cli.Listen `arg:"" default:":5201" help:"Address and port to listen on; without an address, all of them."`
	Echo   bool       `help:"Send back what comes. Default: only count it."`
	Loops  int        `default:"0" help:"Event loops. Default: one per CPU."`
	JSON   bool       `name:"json" help:"Print JSON, one object per line."`
}

// Run serves until SIGINT or SIGTERM.
func (c *serveCmd) Run(command *kong.Context) error {
	if c.Loops < 0 {
		return cli.Usagef("--loops %d: must not be negative", c.Loops)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := &printer{to: command.Stdout, json: c.JSON}
	return newServer(c.Echo, out).run(ctx, c.Listen, c.Loops)
}
