// Package ends is the two ends of a measurement: a server, and clients of several
// kinds, each a worker process that is told what to do on its standard input.
//
// A worker reads a [Job] and sets itself up; prints {"ready":true}; reads a [Window],
// counts what happens in it, prints a [Result], and ends. It ends by itself whenever
// its standard input does. [Work] is the worker, [Start] the side that holds its reins.
//
// The server listens on two ports. On the first it answers requests: each says how
// long its reply shall be, and whether the server is to close the connection after
// it. On the second it takes bytes, or sends them, as fast as they go.
//
// Bytes come in a pattern, and each read is checked at both its ends: bytes that a
// relay loses, repeats or mixes up are found, for next to no time.
package ends

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Kinds of workers.
const (
	Serve = "serve" // the server
	RR    = "rr"    // request and response, on connections that stay
	CPS   = "cps"   // connections per second: each serves one request
	Bulk  = "bulk"  // streams at full speed
	Idle  = "idle"  // connections on which nothing happens
	Slow  = "slow"  // streams whose reader is slow
)

// Job says what a worker does.
type Job struct {
	// Kind is one of the constants above.
	Kind string
	// Address is where the server listens, and where clients connect to: for bulk
	// and slow, and for the server's other half, the port is the next one.
	Address netip.AddrPort
	// Connections: rr and idle: connections; cps: how many are open at a time;
	// bulk and slow: streams. Default 1.
	Connections int
	// Request is the bytes of a request, at least 16, its header. Default 128.
	Request int
	// Reply is the bytes of a reply, at least 1. Default 128.
	Reply int
	// Rate, for rr, is requests per second on all connections together, on a
	// schedule whatever the replies do (open loop). Default 0: each connection
	// sends a request when it has the reply to the one before (closed loop).
	Rate float64
	// Down, for bulk: the server sends. Default: the client does.
	Down bool
	// Pace, for slow, is the bytes per second that the reader of a stream takes.
	Pace int64
	// Threads is how many event loops the worker has: serve, rr, idle. Default 1.
	Threads int
	// Processors bounds on how many CPUs the worker runs Go code at a time (GOMAXPROCS).
	// Default 0: all.
	Processors int
}

// Window is the time in which a worker counts. It is the wall clock's: all workers
// are on one machine. From must lie ahead when the worker reads it.
//
// It may have parts, between which a client is stopped while others have their turns: see
// [Worker.Pause].
type Window struct {
	From, To time.Time
	// Every, if not 0: only the time Part counts, from From on and again after each Every.
	Every, Part time.Duration
	// Lead is how long before each part the client goes on.
	Lead time.Duration
}

// Result is what a worker counted in the window.
type Result struct {
	// Requests, of rr and cps, are those whose reply was complete in the window.
	Requests uint64
	// Bytes are those that arrived in the window at who reads them: the client for
	// slow and for bulk down; for bulk up the server, whose own Result has them.
	Bytes uint64
	// Connections are those that stood when the worker was ready; for cps those
	// that were opened in the window. 0 for the server.
	Connections uint64
	// Errors counts connections that failed, were lost, brought wrong bytes, or
	// had no reply for 5 s, in the window and before, and for idle after it; for
	// rr and cps, that nothing at all was answered is one error too. To the
	// server, a client that goes away is none.
	Errors uint64
	// Error is the first of them, for a person.
	Error string
	// Latency, of rr and cps, is in nanoseconds, from 1 us to 60 s, to three
	// digits; nil for other kinds. It is that of Requests, from when the request
	// was written, or with a Rate was due, to the last byte of the reply; for cps
	// from connect. Requests that have no reply yet when the window is over are
	// not in it: with a Rate, compare Requests with what there should have been. Nor are
	// those, in a window of parts, that were written in an earlier part.
	Latency *hdrhistogram.Snapshot
	// CPU is what this worker itself used in the window, see account.Process.
	CPU time.Duration
}

// Bounds of what a job may ask for.
const (
	maxConnections = 60_000
	maxMessage     = 64 << 20
	maxThreads     = 256
)

// complete fills in the defaults, and refuses what cannot be done.
func (j Job) complete() (Job, error) {
	for _, d := range []struct {
		field *int
		value int
	}{{&j.Connections, 1}, {&j.Request, 128}, {&j.Reply, 128}, {&j.Threads, 1}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	switch j.Kind {
	case Serve, RR, CPS, Bulk, Idle, Slow:
	default:
		return j, fmt.Errorf("kind %q: want serve, rr, cps, bulk, idle or slow", j.Kind)
	}
	switch {
	case !j.Address.IsValid() || j.Address.Port() == 0 || j.Address.Port() == 65535:
		return j, fmt.Errorf("address %v: want an IP address, and a port that has a next one", j.Address)
	case j.Connections < 1 || j.Connections > maxConnections:
		return j, fmt.Errorf("%d connections: want 1 to %d", j.Connections, maxConnections)
	case j.Request < headerSize || j.Request > maxMessage:
		return j, fmt.Errorf("request of %d bytes: want %d to %d", j.Request, headerSize, maxMessage)
	case j.Reply < 1 || j.Reply > maxMessage:
		return j, fmt.Errorf("reply of %d bytes: want 1 to %d", j.Reply, maxMessage)
	case !(j.Rate >= 0 && j.Rate <= 1e7): // nor NaN
		return j, fmt.Errorf("rate of %g per second: want 0 to 10,000,000", j.Rate)
	case j.Threads < 1 || j.Threads > maxThreads:
		return j, fmt.Errorf("%d threads: want 1 to %d", j.Threads, maxThreads)
	case j.Processors < 0 || j.Processors > maxThreads:
		return j, fmt.Errorf("%d processors: want 0 to %d", j.Processors, maxThreads)
	case j.Kind == Slow && j.Pace < 1:
		return j, fmt.Errorf("pace of %d bytes per second: want at least 1", j.Pace)
	}
	return j, nil
}

// bulkAddress is where the server's other half is.
func (j Job) bulkAddress() netip.AddrPort {
	return netip.AddrPortFrom(j.Address.Addr(), j.Address.Port()+1)
}

// readyLine is what a worker prints once.
type readyLine struct {
	Ready bool `json:"ready"`
}

// line is one line of JSON.
func line(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(text, '\n'), err
}
