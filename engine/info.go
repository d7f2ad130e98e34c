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
	PathSplice   Path = iota // through a pipe, or a few at a time through a scratch buffer
	PathBuffer               // through buffers, because a handler sees them, or splice is off or refused
	PathDetached             // as PathSplice, after a handler has detached
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

// MarshalText gives the name of p, which stands for it in JSON.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// DirectionInfo describes one direction of a pair. Its source is the socket that it reads from, its
// sink the one that it writes to.
type DirectionInfo struct {
	// Bytes is how many bytes the sink's socket has accepted: they are sent, or wait in its send
	// buffer.
	Bytes uint64
	// Acknowledged is how many of Bytes the sink's other end has acknowledged: its kernel has them.
	// After an end with a reset the others are lost. After ReasonEOF the kernel still delivers
	// them.
	Acknowledged uint64
	Messages     uint64 // writes that the sink's socket has accepted
	Path         Path   //
	Pending      int    // bytes that were read from the source and are not yet accepted by the sink
	// Pauses counts stalls: the source had bytes, but the sink was full and no more could be
	// pending.
	Pauses    uint32
	PausedFor time.Duration // the sum of all stalls, in steps of 100 ms
	Paused    bool          // the direction stalls now
	Throttled bool          // the socket buffers are limited, because the sink is slow
	EOF       bool          // the source's FIN was read
	FinSent   bool          // the FIN was passed on to the sink
}

// PairInfo describes a pair, which lives or has just ended.
type PairInfo struct {
	ID          uint64            // unique within the process, and over hand-overs
	Client      netip.AddrPort    // the zone of a link-local address is the interface's index
	Destination netip.AddrPort    // the original one, which the client meant
	Connected   netip.AddrPort    // where the outgoing connection goes; an interceptor may change it
	Listener    netip.AddrPort    // where the connection was accepted; invalid if it was adopted
	Mode        tproxy.Mode       // of the listener; Forward for adopted connections
	SpoofLevel  tproxy.SpoofLevel // how the outgoing connection's source address was chosen
	Established bool              // the outgoing connection was established
	Since       time.Time         // when the pair began: Duration ago, by the present wall clock
	Duration    time.Duration     // until now, or until the end, by the monotonic clock
	Upstream    DirectionInfo     // client to destination
	Downstream  DirectionInfo     // destination to client
	Reason      Reason            // why the pair ended; ReasonNone while it lives
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

// Stats are the engine's statistics, summed over all loops. Unsigned numbers are counters since
// New. Signed numbers are gauges of now.
type Stats struct {
	Accepted uint64 // connections accepted from listeners
	Adopted  uint64 // connections given to Adopt
	// HandedOver counts pairs that another process's engine has taken (HandOver). They are Ended
	// with ReasonHandedOver, too.
	HandedOver uint64
	TakenOver  uint64            // pairs taken from another process's engine (TakeOver)
	Active     int64             // pairs
	Opened     uint64            // pairs whose outgoing connection was established
	Ended      map[Reason]uint64 // pairs that ended, by reason
	// DialErrors counts outgoing connections that failed, by the name of the errno, such as
	// ECONNREFUSED.
	DialErrors map[string]uint64
	// SpoofLevels counts outgoing connections that were established, by how their source address
	// was chosen.
	SpoofLevels map[tproxy.SpoofLevel]uint64

	// Bytes that the sinks' sockets have accepted (DirectionInfo.Bytes), by direction and path.
	UpstreamSplice   uint64
	UpstreamBuffer   uint64
	DownstreamSplice uint64
	DownstreamBuffer uint64

	Pending int64 // bytes that were read from sources and are not yet accepted by sinks
	Memory  int64 // bytes charged to MemoryLimit: pipes and buffers, by their capacity
	// KernelMemory is what the kernel holds for the sockets of the pairs, in bytes, as it counts
	// itself (ss -tm: r, w, f, o and bl): bytes that wait to be read, to be sent and to be
	// acknowledged, with their overhead. MemoryLimit does not bound it; docs/flow-control.md says
	// what does. It is sampled, and not older than two seconds as long as a loop has no more than
	// 1,280 pairs. Beyond that it may be older by 0.2 s for each 128 pairs of a loop.
	KernelMemory int64
	// Pauses counts stalls of directions: the source had bytes, but the sink was full and no more
	// could be pending.
	Pauses      uint64
	Starved     uint64 // times that a direction could not read because of MemoryLimit
	Throttles   uint64 // times that a stalling direction's socket buffers were set, at most once per 100 ms
	Moderations uint64 // times that a direction proved to be bulk and was moderated
	PipesInUse  int64  // pipes that hold bytes
	PipesIdle   int64  // empty pipes in the pools
	PipeMisses  uint64 // times that a buffer was used because no pipe was free
	Buffers     int64  // buffers in use

	Waits         uint64 // calls of epoll_wait
	Events        uint64 // events that epoll_wait returned
	StaleEvents   uint64 // events of pairs that had ended
	Splices       uint64 // calls of splice
	SourceEmpty   uint64 // EAGAIN from a source that had nothing
	PipeFull      uint64 // EAGAIN from a source because the pipe was full
	SinkFull      uint64 // EAGAIN from a sink, and writes that it accepted in part
	SpliceRefused uint64 // directions that use buffers because a socket refused splice
	AcceptErrors  uint64 // accepts that failed
	AcceptPauses  uint64 // times that a listener waited, because descriptors or MaxPairs were used up
}
