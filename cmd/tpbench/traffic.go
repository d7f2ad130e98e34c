package main

import (
	"context"
	"net/netip"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/internal/netlab"
)

// traffic sends from h1 to h3, as fast as it can.
type traffic interface {
	name() string
	// send starts a server on h3 at the address to, sends to it from h1 for so
	// many seconds, and returns when both ends have ended.
	send(ctx context.Context, lab *netlab.Lab, to netip.AddrPort, seconds int) (transfer, error)
}

// transfer is a connection from h1 to h3 as its two ends saw it.
type transfer struct {
	// Client is the client's end as the client knows it, ServerSaw the same end
	// as the server sees it.
	Client    netip.AddrPort `json:"client"`
	ServerSaw netip.AddrPort `json:"server_saw"`
	// Sender is what the sender's socket took, Arrived what the server received.
	Sender  []flow.Interval `json:"sender"`
	Arrived []flow.Interval `json:"arrived"`
}
