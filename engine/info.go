package engine

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/tprelay/tprelay/tproxy"
)

// Path is how the bytes of a direction travel.
type Path uint8

const (
	PathSplice   Path = iota // through a pipe, or the loop's scratch buffer when they are few; never kept in user space
	PathBuffer               // through buffers: a handler wants to see them, or splice is off or refused
	PathDetached             // spliced after a handler has let go
)

// String gives splice, buffer or detached.
func (p Path) String() string {
	switch p {
	case PathBuffer:
		return "buffer"
	case PathDetached:
		return "detached"
	}
	return "splice"
}

// MarshalText makes a path its name in JSON.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// DirectionInfo describes one direction of a pair.
type DirectionInfo struct {
	Bytes uint64 // accepted by the sink's socket: sent, or waiting in its send buffer
	// Acknowledged is how many of Bytes the sink's other end has acknowledged: its kernel
	// has them. After an end with a reset the rest is lost; after ReasonEOF the kernel still
	// delivers it.
	Acknowledged uint64
	Messages     uint64        // writes that it took
	Path         Path          //
	Pending      int           // bytes taken from the source, not yet accepted by the sink
	Pauses       uint32        // stalls: the source had bytes, but the sink was full and no more could be pending
	PausedFor    time.Duration // in all, to 100 ms
	Paused       bool          // now
	Throttled    bool          // through its sockets' buffers, because its sink is slow
	EOF          bool          // the source's FIN was read
	FinSent      bool          // and passed on
}

// PairInfo describes a pair.
type PairInfo struct {
	ID          uint64
	Client      netip.AddrPort // the zone of a link-local address is the interface's index
	Destination netip.AddrPort // the original one: whom the client meant
	Connected   netip.AddrPort // where the outgoing connection really goes
	Listener    netip.AddrPort // invalid for an adopted connection
	Mode        tproxy.Mode
	SpoofLevel  tproxy.SpoofLevel // how the outgoing connection's source address was chosen
	Established bool              // the outgoing connection stands
	Since       time.Time         // by the wall clock as it goes now: Duration ago
	Duration    time.Duration     // so far, or until the end, by the monotonic clock
	Upstream    DirectionInfo     // client to destination
	Downstream  DirectionInfo     // destination to client
	Reason      Reason            // why it ended; ReasonNone while it lives
	// Err is the error that ended the pair, or nil. It is or wraps the syscall.Errno of a failed
	// system call (errors.Is(info.Err, syscall.ECONNREFUSED)), or says how a callback panicked.
	Err error
}

// MarshalJSON writes Err as its text, which is empty where there is none, and the other fields
// under their own names.
func (i PairInfo) MarshalJSON() ([]byte, error) {
	type fields PairInfo
	text := ""
	if i.Err != nil {
		text = i.Err.Error()
	}
	return json.Marshal(struct {
		fields
		Err string
	}{fields(i), text})
}

// Stats are counters since New and gauges of now, summed over all loops.
type Stats struct {
	// Pairs.
	Accepted uint64 // connections taken from listeners
	Adopted  uint64 // connections taken by Adopt
	// Pairs given to another process's engine (HandOver), which are also Ended with
	// ReasonHandedOver, and taken from one (TakeOver).
	HandedOver, TakenOver uint64

	Active int64  // pairs now
	Opened uint64 // pairs whose outgoing connection was established
	Ended  map[Reason]uint64
	// DialErrors counts failed outgoing connections by errno name, e.g. ECONNREFUSED.
	DialErrors map[string]uint64
	// SpoofLevels counts outgoing connections that were established by how their source address was
	// chosen.
	SpoofLevels map[tproxy.SpoofLevel]uint64

	// Bytes that sinks' sockets have accepted (DirectionInfo.Bytes), by direction and path.
	UpstreamSplice   uint64
	UpstreamBuffer   uint64
	DownstreamSplice uint64
	DownstreamBuffer uint64

	// What waits.
	Pending int64 // bytes taken from sources, not yet accepted by sinks
	Memory  int64 // bytes charged to MemoryLimit: pipes by capacity, and buffers
	// KernelMemory is what the kernel holds for the sockets of the pairs, in bytes, as it counts
	// itself (ss -tm: r, w, f, o and bl): bytes that wait to be read, to be sent and to be
	// acknowledged, with their overhead. MemoryLimit does not bound it; see docs/flow-control.md
	// for what does. It is sampled, and not older than two seconds as long as a loop has no more
	// than 1,280 pairs, or two times a tenth of a second for each 128 pairs of a loop beyond that.
	KernelMemory int64
	Pauses       uint64 // stalls of directions: the source had bytes, but the sink was full and no more could be pending
	Starved      uint64 // times that a direction could not read because of MemoryLimit
	Throttles    uint64 // times that a stalling direction's socket buffers were set, at most once per 100 ms
	Moderations  uint64 // times that a direction proved to be bulk and was moderated
	PipesInUse   int64
	PipesIdle    int64 // empty, in the pools
	PipeMisses   uint64
	Buffers      int64 // in use

	// The machinery.
	Waits         uint64 // epoll_wait calls
	Events        uint64 // events that they brought
	StaleEvents   uint64 // events of pairs that had ended
	Splices       uint64 // splice calls
	SourceEmpty   uint64 // EAGAIN from a source: nothing there
	PipeFull      uint64 // EAGAIN from a source because the pipe was full
	SinkFull      uint64 // EAGAIN or a short write
	SpliceRefused uint64 // directions that fell back to buffers because a socket refused splice
	AcceptErrors  uint64 // failed accepts
	AcceptPauses  uint64 // times that a listener waited: no descriptors, or MaxPairs
}
