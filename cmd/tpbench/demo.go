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

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// demoCmd is tpbench demo.
type demoCmd struct {
	Mode string `enum:"tproxy,redirect" default:"tproxy" help:"How connections come to the relay: ${enum}."`
	IPv6 bool   `name:"ipv6" help:"Do it over IPv6."`
	pathFlags
	Seconds int    `default:"10" help:"Length of each of the three runs."`
	Traffic string `enum:"auto,iperf3,builtin" default:"auto" help:"Who sends: ${enum}; auto is iperf3 where it is installed."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (c *demoCmd) check() error {
	if err := checkSeconds(c.Seconds); err != nil {
		return err
	}
	return c.pathFlags.check()
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

	path := c.path()
	lab, err := path.Lab()
	if err != nil {
		return nil, err
	}
	if path.Note != "" {
		r.Notes = append(r.Notes, path.Note)
	}
	defer func() {
		if closeErr := lab.Close(); err == nil {
			err = closeErr
		}
	}()
	r.Settings.Delay = path.Delay.Seconds()
	e.lab = lab
	if r.Runs, err = e.all(ctx); err != nil {
		return nil, err
	}
	r.Reading = r.read()
	return r, nil
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
