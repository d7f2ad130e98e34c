package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// demoCmd is tpbench demo.
type demoCmd struct {
	Mode       string        `enum:"tproxy,redirect" default:"tproxy" help:"How connections come to the relay: ${enum}."`
	IPv6       bool          `name:"ipv6" help:"Do it over IPv6."`
	Access     units.Rate    `default:"20mbit" help:"Rate of the link h1-h2, before the relay."`
	Bottleneck units.Rate    `default:"6mbit" help:"Rate of the link h2-h3, behind it."`
	Queue      time.Duration `default:"100ms" help:"Queue before each link, as the time that it takes to pass; at least ten packets."`
	Delay      time.Duration `default:"10ms" help:"Delay of each link, one way, where the kernel can delay."`
	Seconds    int           `default:"10" help:"Length of each of the three runs."`
	Traffic    string        `enum:"auto,iperf3,builtin" default:"auto" help:"Who sends: ${enum}; auto is iperf3 where it is installed."`
	JSON       bool          `name:"json" help:"Print JSON."`
}

func (c *demoCmd) check() error {
	switch {
	case c.Seconds < 3 || c.Seconds > 600:
		return cli.Usagef("--seconds %d: must be between 3 and 600", c.Seconds)
	case c.Queue <= 0 || c.Queue > 10*time.Second:
		return cli.Usagef("--queue %v: must be more than 0 and at most 10s", c.Queue)
	case c.Delay < 0 || c.Delay > 10*time.Second:
		return cli.Usagef("--delay %v: must be between 0 and 10s", c.Delay)
	}
	return nil
}

// Run makes the three hosts, sends through them three times, and prints what that
// showed.
func (c *demoCmd) Run(command *kong.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once

	r, err := c.measure(ctx, newProgress(command.Stderr))
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return r.print(command.Stdout, c.JSON)
}

// measure does the runs. Nothing of them is left when it returns.
func (c *demoCmd) measure(ctx context.Context, p *progress) (r *report, err error) {
	e := &experiment{seconds: c.Seconds, ipv6: c.IPv6, progress: p}
	if e.mode, err = tproxy.ParseMode(c.Mode); err != nil {
		return nil, err
	}
	if e.backend, err = backend(); err != nil {
		return nil, err
	}
	r = &report{Settings: settings{
		Mode: c.Mode, IPv6: c.IPv6, Access: uint64(c.Access), Bottleneck: uint64(c.Bottleneck), Seconds: c.Seconds,
		Skipped: flow.Skipped(c.Seconds), Queue: c.Queue.Seconds(), Backend: string(e.backend),
	}}
	e.traffic, err = c.source()
	if err != nil {
		return nil, err
	}
	r.Settings.Traffic = e.traffic.name()
	if c.Traffic == "auto" && r.Settings.Traffic != "iperf3" {
		r.Notes = append(r.Notes, "built-in traffic: iperf3 is not installed")
	}

	delay := c.Delay
	lab, err := c.lab(delay)
	if errors.Is(err, netlab.ErrNoNetem) {
		r.Notes = append(r.Notes, "no delay: this kernel has no netem")
		delay = 0
		lab, err = c.lab(delay)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := lab.Close(); err == nil {
			err = closeErr
		}
	}()
	r.Settings.Delay = delay.Seconds()
	e.lab = lab
	if r.Runs, err = e.all(ctx); err != nil {
		return nil, err
	}
	r.Reading = r.read()
	return r, nil
}

func (c *demoCmd) lab(delay time.Duration) (*netlab.Lab, error) {
	link := func(r units.Rate) netlab.Link {
		const tenPackets = 10 * 1514
		queue := float64(r) / 8 * c.Queue.Seconds()
		return netlab.Link{Rate: uint64(r), Delay: delay, Queue: int(min(max(queue, tenPackets), 1<<30))}
	}
	return netlab.New(netlab.Config{Access: link(c.Access), Bottleneck: link(c.Bottleneck)})
}

// source is the traffic that was asked for.
func (c *demoCmd) source() (traffic, error) {
	path, err := exec.LookPath("iperf3")
	switch {
	case c.Traffic == "builtin" || c.Traffic == "auto" && err != nil:
		return builtin{}, nil
	case err != nil:
		return nil, errors.New("iperf3 is not installed; install it, or use --traffic builtin")
	}
	return iperf3{path}, nil
}

// backend is the program that loads rules here.
func backend() (rules.Backend, error) {
	for _, b := range []rules.Backend{rules.NFT, rules.IPTables} {
		if b.Installed() {
			return b, nil
		}
	}
	return "", errors.New("neither nft nor iptables is installed; install nftables")
}

// print writes the report, as a table for people or as JSON.
func (r *report) print(w io.Writer, asJSON bool) error {
	if !asJSON {
		_, err := io.WriteString(w, r.table())
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
