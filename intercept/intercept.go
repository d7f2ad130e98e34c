// Package intercept is the contract between the relay and interceptors: code that looks at the
// bytes of relayed connections, and may change them, hold them back, or end the connection. It also
// has ready-made interceptors: [Label], [Replace], [Record], [OnRead], and [Chain] for several.
// From version 1 on it keeps to semantic versioning.
//
// An [Interceptor] is asked once per pair, before the outgoing connection is opened. It may refuse
// the pair, send it to another destination, and give a [Handler] for each direction. A direction
// without a handler is spliced: its bytes do not enter user space. When a handler returns [Detach],
// the rest of its direction is spliced, too.
//
// The engine makes all calls for one pair on one event loop, one at a time. They must not block,
// because all other pairs of that loop would wait. Different pairs may be on different loops, so
// what handlers share needs a lock. A panic resets its pair and nothing else.
package intercept

import (
	"net/netip"

	"github.com/tprelay/tprelay/tproxy"
)

// Pair is what is known of a pair before its outgoing connection is opened.
type Pair struct {
	ID          uint64         // unique within the process, and over hand-overs
	Client      netip.AddrPort // the client's address; the zone of a link-local one is a number
	Destination netip.AddrPort // where the client meant to go
	Listener    netip.AddrPort // where the connection was accepted; invalid if it was adopted
	Mode        tproxy.Mode    // of the listener; Forward for adopted connections
}

// Decision is an interceptor's answer for a pair. The zero Decision relays the pair unchanged.
type Decision struct {
	// Upstream sees the bytes from the client, Downstream those to it. Default: nil, which leaves
	// the direction to splice. Both may be the same value if it keeps no state per direction. A
	// handler that is also an io.Closer is closed once, on the loop, when the pair ends.
	Upstream, Downstream Handler
	// Destination replaces the original one. Default: the zero value, which keeps it. Names are not
	// resolved. Port 0 fails as a dial error.
	Destination netip.AddrPort
	// Refuse resets the client. Nothing is opened, and the pair ends with engine.ReasonRejected.
	Refuse bool
}

// Interceptor is asked once for every pair.
type Interceptor interface {
	// Open decides about a pair. It is called on the pair's loop and must not block. A panic resets
	// the client.
	Open(Pair) Decision
}

// The InterceptorFunc type lets an ordinary function be an Interceptor.
type InterceptorFunc func(Pair) Decision

// Open calls f(p).
func (f InterceptorFunc) Open(p Pair) Decision { return f(p) }

// Handler sees the bytes of one direction of one pair, in order. It sees each byte once, except
// those that it held back: they are the beginning of the next chunk.
type Handler interface {
	// Handle looks at a chunk, which is valid until it returns. It is called on the pair's loop and
	// must not block. A panic resets the pair.
	Handle(*Chunk) Verdict
}

// The HandlerFunc type lets an ordinary function be a Handler.
type HandlerFunc func(*Chunk) Verdict

// Handle calls f(c).
func (f HandlerFunc) Handle(c *Chunk) Verdict { return f(c) }

// Verdict is what a handler wants done with a chunk. Bytes that it gave to [Chunk.Write] are sent
// first, with every verdict but Reset.
type Verdict uint8

const (
	// Forward sends Chunk.Data on.
	Forward Verdict = iota
	// Hold keeps Chunk.Data back: the next chunk begins with these bytes. A handler that holds more
	// than MaxHold bytes ends its pair with a reset. At the end of the stream (Chunk.End), Hold
	// means Forward.
	Hold
	// Detach sends Chunk.Data on and does not call the handler again: the rest of the direction is
	// spliced.
	Detach
	// Close sends Chunk.Data on, then ends both directions with a FIN. What the source still sends
	// is discarded, and so is what the other direction's handler holds back. Neither handler is
	// called again.
	Close
	// Reset ends the pair at once, with an RST to both sides.
	Reset
)

// MaxHold is how many bytes a handler may hold back at most.
const MaxHold = 64 << 10

// Chunk is a run of bytes of one direction.
type Chunk struct {
	// Data is what was held back before, followed by what was read: up to 64 KiB at a time, and up
	// to 512 KiB of a direction at full speed. The handler may edit it in place, cut it, or set it
	// to bytes of its own, which must not change until the handler is called again. Data itself is
	// not valid after Handle returns.
	Data []byte
	// End says that no bytes follow Data, which may be empty. Handle is called with End exactly
	// once, unless the handler has returned Detach, Close or Reset before, or the pair ends while
	// its sink has failed or accepts nothing.
	End bool
	// Cut says, together with End, that the stream did not end with a FIN: its source was reset, or
	// the pair ends by a timer or with the engine. What the handler sends on is sent before the
	// RST, as far as the sink accepts it.
	Cut bool

	out []byte
}

// Write sends a copy of p before Data, behind what was written before. It never fails.
func (c *Chunk) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	return len(p), nil
}

// WriteString is Write for a string.
func (c *Chunk) WriteString(s string) (int, error) {
	c.out = append(c.out, s...)
	return len(s), nil
}

// Written is what Write has collected for this chunk. It is valid until the next Write or Reset.
func (c *Chunk) Written() []byte { return c.out }

// Reset makes c a chunk with nothing written and without Cut, and keeps its memory. It is for code
// that calls handlers: the engine, a chain, a test.
func (c *Chunk) Reset(data []byte, end bool) {
	c.Data, c.End, c.Cut, c.out = data, end, false, c.out[:0]
}
