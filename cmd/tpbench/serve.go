package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// serveCmd is tpbench serve.
type serveCmd struct {
	Listen listenFlag `arg:"" default:":5201" help:"Address and port to listen on; without an address, all of them."`
	Echo   bool       `help:"Send back what comes. Default: only count it."`
	Loops  int        `default:"0" help:"Event loops. Default: one per CPU."`
	JSON   bool       `name:"json" help:"Print JSON, one object per line."`
}

// Run serves until SIGINT or SIGTERM.
func (c *serveCmd) Run(command *kong.Context) error {
	if c.Loops < 0 {
		return usagef("--loops %d: must not be negative", c.Loops)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := &printer{to: command.Stdout, json: c.JSON}
	return newServer(c.Echo, out).run(ctx, c.Listen, c.Loops)
}

// listenFlag is an address and a port; without the address, all of both families.
type listenFlag struct{ netip.AddrPort }

// UnmarshalText reads ADDR:PORT or :PORT.
func (l *listenFlag) UnmarshalText(text []byte) error {
	full := string(text)
	if strings.HasPrefix(full, ":") {
		full = "[::]" + full
	}
	address, err := netip.ParseAddrPort(full)
	if err != nil {
		return fmt.Errorf("%q: want ADDR:PORT with an IP address, such as 127.0.0.1:5201, or :5201 for all addresses", text)
	}
	l.AddrPort = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	return nil
}
