package handover

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

// Hello is the first thing that the old engine says.
type Hello struct {
	Version    int
	Generation uint64 // of the old engine: how many took over before it
	Sockets    int    // listeners that follow
	Pairs      int    // that will come; more or fewer when some begin or end meanwhile
}

// ready is what the new engine says when its loops run.
type ready struct {
	Room int // pairs that it has descriptors for
}

// Listener names a listener.
type Listener struct {
	Address netip.AddrPort
	Mode    tproxy.Mode
}

// Socket is a listening socket.
type Socket struct {
	Listener
	FD int
}

// CloseSockets closes them.
func CloseSockets(sockets []Socket) {
	for _, s := range sockets {
		unix.Close(s.FD)
	}
}

// State is the state of a pair before it was frozen.
type State string

// The states of a pair.
const (
	Waiting    State = "waiting" // for a descriptor for the outgoing flow
	Connecting State = "connecting"
	Open       State = "open"
)

// Pair is what an engine needs to go on with a pair.
type Pair struct {
	Record
	FDs     []int     // of the incoming flow and, unless it is Waiting, of the outgoing one
	Pending [2][]byte // of each direction
}

// Record is a pair without its descriptors and its pending bytes. Directions are upstream,
// downstream.
type Record struct {
	ID          uint64
	Duration    time.Duration // since it was accepted, by the monotonic clock
	Silent      time.Duration // since its last activity
	Client      netip.AddrPort
	Destination netip.AddrPort
	Connected   netip.AddrPort // where it was connected to, if that is not Destination
	Listener    Listener       `json:",omitzero"` // adopted pairs have none
	Step        tproxy.SpoofLevel
	State       State
	Opened      bool
	Cause       uint8 // errno, if a flow has failed
	Directions  [2]Direction
}

// Direction is one direction of a pair. Broken is about its source.
type Direction struct {
	Bytes, Messages                        uint64
	Pending                                int
	Pauses                                 uint32
	PausedFor                              time.Duration
	EOF, FinSent, Ending, Urgent, Buffered bool
	FINCame                                bool
	Detached, Closing, Broken, Throttled   bool
	ACKHeld                                bool
	Most                                   uint32
}

// Close closes the pair's descriptors.
func (p *Pair) Close() {
	closeAll(p.FDs)
	p.FDs = nil
}

// Pair reads and checks a pair. Its descriptors are the frame's until the caller takes them.
func (f *Frame) Pair() (p Pair, err error) {
	if err := f.parse(&p.Record); err != nil {
		return p, err
	}
	descriptors := 2
	switch p.State {
	case Waiting:
		descriptors = 1
	case Connecting, Open:
	default:
		return p, fmt.Errorf("hand-over: a pair in state %q", p.State)
	}
	if len(f.FDs) != descriptors {
		return p, fmt.Errorf("hand-over: a pair in state %s with %d descriptors", p.State, len(f.FDs))
	}
	if !p.Client.IsValid() {
		return p, fmt.Errorf("hand-over: a pair without a client")
	}
	rest := f.Body
	for i, d := range p.Directions {
		if d.Pending < 0 || d.PausedFor < 0 || p.Silent < 0 {
			return p, fmt.Errorf("hand-over: a pair with %d pending bytes, paused for %v, silent for %v", d.Pending, d.PausedFor, p.Silent)
		}
		if d.Pending > len(rest) {
			return p, fmt.Errorf("hand-over: a pair with %d pending bytes, and %d came", d.Pending, len(rest))
		}
		p.Pending[i], rest = rest[:d.Pending], rest[d.Pending:]
	}
	if len(rest) > 0 {
		return p, fmt.Errorf("hand-over: a pair with %d bytes too many", len(rest))
	}
	p.FDs = f.FDs
	return p, nil
}
