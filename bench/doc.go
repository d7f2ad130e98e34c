// Package bench measures TCP relays against each other: the same traffic from h1 to
// h3 of a lab (package internal/netlab), with each relay in turn on h2 between them,
// or none, in several rounds.
//
//	client workers        relay          server worker
//	    h1 ---------------- h2 ---------------- h3
//
// A [Point] is one kind of traffic with its numbers: 100 connections with requests
// of 128 bytes. A [Plan] says which relays are measured at which points, and in which
// order: relays alternate, so that what the machine does by itself meets all of them,
// and take short turns where they can, see turns.go.
// [Driver.Run] does it and gives [Results], which are raw; tables, the report and the
// verdict on the targets are computed from them, also later from a file.
//
// Every run has a lab, relay and workers of its own: ports in TIME_WAIT, grown
// buffers and warm caches of one run are not there in the next.
//
// Client, relay and server share one machine. Requests per second are therefore what
// the machine does with all three; the relay's own part is its CPU time. Figures of
// different machines, or of different runs of the command, say little against each
// other; the ratios within one run are what to look at.
package bench
