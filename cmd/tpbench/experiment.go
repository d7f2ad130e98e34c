package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

const (
	relayPort  = 9091
	serverPort = 5201
)

// experiment is the same transfer from h1 to h3, three times.
type experiment struct {
	lab      *netlab.Lab
	traffic  traffic
	mode     tproxy.Mode
	backend  rules.Backend
	ipv6     bool
	seconds  int
	progress *progress
}

// all does the runs, one after the other.
func (e *experiment) all(ctx context.Context) (runs []run, err error) {
	defer e.progress.clear()
	for i, r := range []run{
		{Name: "direct, no relay"},
		{Name: "relay with flow control", Relay: true, FlowControl: true},
		{Name: "relay without flow control", Relay: true},
	} {
		e.progress.begin(fmt.Sprintf("%d of 3: %s", i+1, r.Name), e.seconds)
		if err := e.do(ctx, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// do does one run and fills in what it measured.
func (e *experiment) do(ctx context.Context, r *run) (err error) {
	// Nothing may hang for ever: twice the time and then some is far too long.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(e.seconds)*time.Second+30*time.Second)
	defer cancel()
	live := func() string { return "" }
	var relay *relayProcess
	if r.Relay {
		// The relay first: rules without a relay would refuse connections.
		if relay, err = startRelay(ctx, e.lab.H2, e.mode, e.listen(), r.FlowControl); err != nil {
			return err
		}
		defer relay.kill()
		remove, err := e.divert(ctx)
		if err != nil {
			return err
		}
		defer func() {
			if removeErr := remove(); err == nil && removeErr != nil {
				err = removeErr
			}
		}()
		live = func() string { return units.FormatBytes(relay.figures().Pending) + " wait in the relay" }
	}
	watching, unwatch := context.WithCancel(ctx)
	defer e.progress.watch(watching, live).Wait()
	defer unwatch()

	sent, err := e.traffic.send(ctx, e.lab, netip.AddrPortFrom(e.address(e.lab.H3.Iface(netlab.Edge)), serverPort), e.seconds)
	if err != nil {
		return err
	}
	skip := flow.Skipped(e.seconds)
	r.transfer = sent
	r.SenderRate, r.ArrivedRate = flow.MeanRate(sent.Sender, float64(skip)), flow.MeanRate(sent.Arrived, float64(skip))
	r.SentBytes, r.ArrivedBytes = flow.Total(sent.Sender), flow.Total(sent.Arrived)
	r.Saw = e.saw(sent)
	if relay == nil {
		return nil
	}
	if r.Process, err = relay.stop(); err != nil {
		return err
	}
	if r.Process.Accepted == 0 {
		return errors.New("the connections did not come to the relay")
	}
	return nil
}

// address is that of an interface in the family of the run.
func (e *experiment) address(i netlab.Iface) netip.Addr {
	if e.ipv6 {
		return i.Addr6
	}
	return i.Addr4
}

// listen is where the relay listens: TPROXY brings connections to any address of
// the host, REDIRECT to one of the interface that they come in by.
func (e *experiment) listen() netip.AddrPort {
	address := e.address(e.lab.H2.Iface(netlab.Left))
	if e.mode == tproxy.TPROXY {
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if e.ipv6 {
			address = netip.IPv6Loopback()
		}
	}
	return netip.AddrPortFrom(address, relayPort)
}

// divert hands the connections that come from h1 to the relay, until remove.
func (e *experiment) divert(ctx context.Context) (remove func() error, err error) {
	dir, err := e.lab.TempDir()
	if err != nil {
		return nil, err
	}
	cfg := rules.Config{
		Mode:     e.mode,
		Listen:   []netip.AddrPort{e.listen()},
		In:       []string{netlab.Left},
		Ports:    rules.Ports{{First: serverPort, Last: serverPort}},
		Backend:  e.backend,
		StateDir: filepath.Join(dir, "rules"), // the default is root's
	}
	if err := e.lab.H2.Do(func() error { return rules.Apply(ctx, cfg) }); err != nil {
		return nil, err
	}
	return func() error {
		// Also after an interrupt.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return e.lab.H2.Do(func() error { return rules.Remove(ctx, cfg) })
	}, nil
}

// saw says whose address the server saw.
func (e *experiment) saw(f transfer) string {
	switch {
	case f.ServerSaw == f.Client:
		return sawClient
	case f.ServerSaw.Addr() == f.Client.Addr():
		return sawOtherPort
	}
	for _, i := range e.lab.H2.Ifaces {
		if f.ServerSaw.Addr() == e.address(i) {
			return sawRelay
		}
	}
	return sawStranger
}
