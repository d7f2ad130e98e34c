// Package worker runs the clients and servers of a measurement, each as a process on a host of a
// lab that takes its orders on standard input.
//
// A worker reads a [Job], sets itself up and prints {"ready":true}; then it reads a [Window],
// counts what happens in it and prints a [Result]. It ends when its standard input does. [Work] is
// the worker; [Start] starts one and returns the handle to it.
//
// What a worker does is a [Task]: see packages client and server.
package worker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tprelay/tprelay/bench/protocol"
)

// Kinds of workers.
const (
	Serve = "serve" // the server
	RR    = "rr"    // request and response on persistent connections
	CPS   = "cps"   // connect, request, response, close
	Bulk  = "bulk"  // streams at full speed
	Idle  = "idle"  // connections without traffic
	Slow  = "slow"  // streams whose reader is slow
)

// Job says what a worker does.
type Job struct {
	// Kind is one of the constants above.
	Kind string
	// Address is where the server listens, and where clients connect to. Streams (Bulk, Slow) use
	// the next port.
	Address netip.AddrPort
	// Connections is the number of connections; of CPS, how many are open at a time; of Bulk and
	// Slow, of streams. Default: 1.
	Connections int
	// Request is the size of a request in bytes, at least 16 for its header. Default: 128.
	Request int
	// Reply is the size of a reply in bytes, at least 1. Default: 128.
	Reply int
	// Rate, of RR, is the requests per second of all connections together, on a schedule that does
	// not wait for replies (open loop). Default: 0, each connection sends a request when it has
	// the reply to the one before (closed loop).
	Rate float64
	// Down, of Bulk: the server sends. Default: the client does.
	Down bool
	// Pace, of Slow, is the bytes per second that the reader of a stream takes.
	Pace int64
	// Threads is the number of event loops of Serve, RR and Idle. Default: 1.
	Threads int
	// Processors bounds on how many CPUs the worker runs Go code at a time (GOMAXPROCS).
	// Default: 0, all.
	Processors int
}

// Window is the time in which a worker counts, by the wall clock: all workers are on one machine.
// From must lie ahead when the worker reads it.
//
// A window may consist of parts. Between them a client is stopped while others have their turns:
// see [Worker.Pause].
type Window struct {
	From, To time.Time
	// Every, if not 0: only the first Part of each Every counts, from From on.
	Every, Part time.Duration
	// Settle is how long before each part the client is resumed.
	Settle time.Duration
}

// Result is what a worker counted in the window.
type Result struct {
	// Requests, of RR and CPS, are those whose reply was complete in the window.
	Requests uint64
	// Bytes arrived in the window at the reader: the client of Slow and of Bulk down; for Bulk up
	// the server, whose own Result has them.
	Bytes uint64
	// Connections stood when the worker was ready; of CPS, they were opened in the window. 0 for
	// the server.
	Connections uint64
	// Errors counts connections that failed, were lost, brought wrong bytes, or had no reply for
	// 5 s, before and in the window, and for Idle after it. RR and CPS count one more if nothing
	// at all was answered. A client that goes away is no error of the server.
	Errors uint64
	// Error is the first of them, for people.
	Error string
	// Latency, of RR and CPS, is in nanoseconds, from 1 us to 60 s, with three digits; nil for
	// other kinds. It runs from when the request was written, or with a Rate was due, to the last
	// byte of the reply; for CPS from connect. Requests without a reply at the end of the window
	// are left out: with a Rate, compare Requests with the number that was due. In a window of
	// parts, requests that were written in an earlier part are left out too.
	Latency *hdrhistogram.Snapshot
	// CPU is what the worker itself used in the window.
	CPU time.Duration
}

// Bounds of what a job may ask for.
const (
	maxConnections = 60_000
	maxThreads     = 256
)

// Complete fills in the defaults, and refuses an invalid job.
func (j Job) Complete() (Job, error) {
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
	case j.Request < protocol.HeaderSize || j.Request > protocol.MaxMessage:
		return j, fmt.Errorf("request of %d bytes: want %d to %d", j.Request, protocol.HeaderSize, protocol.MaxMessage)
	case j.Reply < 1 || j.Reply > protocol.MaxMessage:
		return j, fmt.Errorf("reply of %d bytes: want 1 to %d", j.Reply, protocol.MaxMessage)
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

// StreamAddress is where the server takes streams.
func (j Job) StreamAddress() netip.AddrPort {
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
