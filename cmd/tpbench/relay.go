package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tprelay/tprelay/bench/relays/gnet"
	"github.com/tprelay/tprelay/bench/relays/iocopy"
	"github.com/tprelay/tprelay/bench/relays/tokenbucket"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/cli"
)

// relayCmd is the relays of tpbench compare that are not programs of their own.
type relayCmd struct {
	Iocopy      iocopyCmd      `cmd:"" help:"Be a relay with two goroutines per pair."`
	Tokenbucket tokenbucketCmd `cmd:"" help:"Be a relay that is paced by a timer."`
	Gnet        gnetCmd        `cmd:"" help:"Be a relay on gnet."`
}

// iocopyCmd is a transparent relay with the standard library.
type iocopyCmd struct {
	Listen   cli.Listen `required:"" help:"Where TPROXY brings connections."`
	NoSplice bool       `help:"Copy through buffers."`
}

// untilStopped runs a relay until SIGINT or SIGTERM.
func untilStopped(run func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return run(ctx)
}

// Run relays until SIGINT or SIGTERM.
func (c *iocopyCmd) Run() error {
	relay := iocopy.Relay{Listen: c.Listen.AddrPort, NoSplice: c.NoSplice}
	return untilStopped(relay.Run)
}

// tokenbucketCmd is a transparent relay that is paced by a timer.
type tokenbucketCmd struct {
	Listen cli.Listen `required:"" help:"Where TPROXY brings connections."`
	Rate   units.Rate `default:"6mbit" help:"What each direction of a connection may pass on: the rate of the slowest link, as a guess."`
}

// Run relays until SIGINT or SIGTERM.
func (c *tokenbucketCmd) Run() error {
	relay := tokenbucket.Relay{Listen: c.Listen.AddrPort, Rate: uint64(c.Rate)}
	return untilStopped(relay.Run)
}

// gnetCmd is a relay that clients connect to.
type gnetCmd struct {
	Forward     []forward `required:"" sep:"none" help:"Where to listen, and where to go from there: ADDR:PORT=ADDR:PORT."`
	MostUnread  int       `help:"Bytes that may wait for one receiver before its pair is closed; 0: no limit."`
	MemoryLimit uint64    `default:"4294967296" help:"Bytes of memory beyond which it ends."`
}

// forward is a flag of two addresses.
type forward gnet.Forward

// UnmarshalText reads ADDR:PORT=ADDR:PORT.
func (f *forward) UnmarshalText(text []byte) (err error) {
	listen, server, _ := strings.Cut(string(text), "=")
	if f.Listen, err = netip.ParseAddrPort(listen); err == nil {
		f.Server, err = netip.ParseAddrPort(server)
	}
	if err != nil {
		return fmt.Errorf("%q: want ADDR:PORT=ADDR:PORT with IP addresses", text)
	}
	return nil
}

// Run relays until SIGINT or SIGTERM.
func (c *gnetCmd) Run() error {
	relay := gnet.Relay{MostUnread: c.MostUnread, MemoryLimit: c.MemoryLimit}
	for _, f := range c.Forward {
		relay.Forwards = append(relay.Forwards, gnet.Forward(f))
	}
	return untilStopped(relay.Run)
}
