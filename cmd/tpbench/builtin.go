package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/internal/netlab"
)

// self is this program, to be run once more in a host.
const self = "/proc/self/exe"

// builtin is traffic by tpbench load and tpbench serve.
type builtin struct{}

func (builtin) name() string { return "built-in" }

func (builtin) send(ctx context.Context, lab *netlab.Lab, to netip.AddrPort, seconds int) (transfer, error) {
	server := lab.H3.Command(ctx, self, "serve", "--json", to.String())
	var arrived bytes.Buffer
	server.Stdout = &arrived
	if err := server.Start(); err != nil {
		return transfer{}, err
	}
	defer server.Stop()
	if err := listening(ctx, lab.H3, server, to.Port()); err != nil {
		return transfer{}, err
	}
	// Small blocks, for a block counts when it is taken as a whole. No waiting at
	// the end: what a relay without flow control has piled up takes long.
	sent, err := lab.H1.Command(ctx, self, "load", "--json", "--seconds", strconv.Itoa(seconds),
		"--block", "16KiB", "--drain", "0s", to.String()).Output()
	if err != nil {
		return transfer{}, err
	}
	if err := server.Signal(syscall.SIGTERM); err != nil {
		return transfer{}, err
	}
	if err := ended(ctx, server); err != nil {
		return transfer{}, err
	}
	return builtinFlow(&arrived, bytes.NewReader(sent))
}

// builtinFlow puts together what serve and load have told.
func builtinFlow(arrived, sent io.Reader) (f transfer, err error) {
	var peer netip.AddrPort
	if f.Arrived, _, f.ServerSaw, err = readEvents(arrived); err != nil {
		return transfer{}, fmt.Errorf("serve: %w", err)
	}
	if f.Sender, f.Client, peer, err = readEvents(sent); err != nil {
		return transfer{}, fmt.Errorf("load: %w", err)
	}
	if !f.ServerSaw.IsValid() || !peer.IsValid() {
		return transfer{}, errors.New("no connection came to the server")
	}
	return f, nil
}

// readEvents gives the intervals, and the ends of the first connection.
func readEvents(r io.Reader) (intervals []flow.Interval, local, peer netip.AddrPort, err error) {
	for dec := json.NewDecoder(r); ; {
		var e event
		if err = dec.Decode(&e); err == io.EOF {
			return intervals, local, peer, nil
		} else if err != nil {
			return nil, local, peer, err
		}
		switch {
		case e.Event == eventInterval:
			intervals = append(intervals, e.interval())
		case e.Event == eventOpen && !peer.IsValid() && e.Peer != nil && e.Local != nil:
			local, peer = *e.Local, *e.Peer
		}
	}
}
