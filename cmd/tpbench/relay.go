package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/tproxy"
)

// samplePeriod is how often the relay's memory and pending bytes are looked at.
const samplePeriod = 100 * time.Millisecond

// relayCmd is the demo's relay, a process of its own so that its memory can be
// told from that of everything else.
type relayCmd struct {
	Mode          string     `enum:"tproxy,redirect" default:"tproxy"`
	Listen        cli.Listen `required:""`
	NoFlowControl bool
}

// relaySample is what the relay tells of itself, one line each.
type relaySample struct {
	Listening netip.AddrPort `json:"listening"`
	Accepted  uint64         `json:"accepted"`
	Pending   int64          `json:"pending"`
	Memory    int64          `json:"memory"`
	Pauses    uint64         `json:"pauses"`
	Starved   uint64         `json:"starved"`
}

// Run relays until SIGTERM, and prints a sample every samplePeriod.
func (c *relayCmd) Run(command *kong.Context) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	mode, err := tproxy.ParseMode(c.Mode)
	if err != nil {
		return err
	}
	relay, err := engine.New(engine.Options{
		Listeners:     []engine.Listener{{Address: c.Listen.AddrPort, Mode: mode}},
		NoFlowControl: c.NoFlowControl,
		DrainTimeout:  -1, // what waits in the relay at the end would take as long again to deliver
	})
	if err != nil {
		return err
	}
	defer relay.Close()

	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	out := json.NewEncoder(command.Stdout)
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for {
		s := relay.Stats()
		err := out.Encode(relaySample{relay.Addrs()[0], s.Accepted, s.Pending, s.Memory, s.Pauses, s.Starved})
		if err != nil {
			return fmt.Errorf("print a sample: %w", err)
		}
		select {
		case err := <-done:
			return err
		case <-ticker.C:
		}
	}
}
