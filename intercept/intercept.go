// Package intercept says what an interceptor is: code that looks at the bytes
// of relayed connections, and may change them, hold them back, or end the
// connection.
//
// An [Interceptor] is asked once per pair, before the outgoing connection is
// opened. It may refuse the pair, send it elsewhere, and hand back a [Handler]
// for each direction. A direction without a handler never enters user space:
// it is spliced. A handler that has seen enough says [Detach], and from there on
// its direction is spliced too.
//
// Everything of one pair is called on one event loop, one call at a time; it
// must not block, for all other pairs of that loop wait. Different pairs may be
// on different loops, so what handlers share needs a lock. A panic ends the pair
// with a reset, and nothing else.
package intercept

import (
	"net/netip"

	"github.com/tprelay/tprelay/tproxy"
)

// Pair is what is known of a pair before its outgoing connection is opened.
type Pair struct {
	ID          uint64         // unique within the process
	Client      netip.AddrPort // who connected
	Destination netip.AddrPort // whom the client meant
	Listener    netip.AddrPort // where the pair was accepted; invalid for adopted connections
	Mode        tproxy.Mode
}

// Decision is an interceptor's answer for a pair. The zero Decision lets the
// pair pass untouched.
type Decision struct {
	// Upstream sees the bytes from the client, Downstream those to it.
	// Nil leaves that direction to splice. Both may be the same value if it
	// keeps no state per direction. A handler that is also an io.Closer is
	// closed once, when the pair ends.
	Upstream, Downstream Handler
	// Destination, when valid, is connected to instead of the original one.
	Destination netip.AddrPort
	// Refuse resets the client; nothing is opened, and the pair counts as
	// rejected.
	Refuse bool
}

// Interceptor is asked once for every pair.
type Interceptor interface {
	Open(Pair) Decision
}

// The InterceptorFunc type lets an ordinary function be an Interceptor.
type InterceptorFunc func(Pair) Decision

// Open calls f(p).
func (f InterceptorFunc) Open(p Pair) Decision { return f(p) }

// Handler sees the bytes of one direction of one pair, in order, each byte once,
// except those that it held back itself: these come again, with more behind.
type Handler interface {
	Handle(*Chunk) Verdict
}

// The HandlerFunc type lets an ordinary function be a Handler.
type HandlerFunc func(*Chunk) Verdict

// Handle calls f(c).
func (f HandlerFunc) Handle(c *Chunk) Verdict { return f(c) }

// Verdict is what a handler wants done with a chunk. Bytes that it gave to
// [Chunk.Write] go to the sink first, whatever the verdict (but Reset).
type Verdict uint8

const (
	// Forward sends Chunk.Data on.
	Forward Verdict = iota
	// Hold keeps Chunk.Data back: the next chunk begins with these bytes.
	// No more than the engine's limit can be held (MaxHold, 64 KiB): a handler
	// that holds more ends its pair with a reset. At the end of the
	// stream (Chunk.End) Hold means Forward, for nothing more can come.
	Hold
	// Detach sends Chunk.Data on and takes the handler out: the rest of the
	// direction is spliced.
	Detach
	// Close sends Chunk.Data on, then ends both directions with a FIN. What the
	// source still sends is thrown away, and so is what the other direction's
	// handler holds back; neither handler is called again.
	Close
	// Reset ends the pair at once with an RST to both sides.
	Reset
)

// MaxHold is how many bytes one direction may hold back at most.
const MaxHold = 64 << 10

// Chunk is a run of bytes of one direction.
type Chunk struct {
	// Data is what was read, behind what was held back before: up to 64 KiB at a
	// time, and up to 512 KiB of a direction at full speed. The handler may
	// edit it in place, cut it, or set it to bytes of its own, which must stay
	// as they are until the handler is called again; they are read no later.
	// It is not valid after Handle returns.
	Data []byte
	// End says that no bytes follow Data, which may be empty. Handle is called with End
	// exactly once, unless the handler said Detach, Close or Reset before, or the pair ends
	// while its sink has failed or takes nothing.
	End bool
	// Cut says, together with End, that the stream did not end with a FIN: its source was
	// reset, or the pair ends by a timer or with the engine. What the handler sends on goes
	// out in front of the RST, as far as the sink takes it.
	Cut bool

	out []byte
}

// Write puts p, copied, before Data in what is sent on. It never fails.
func (c *Chunk) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	return len(p), nil
}

// WriteString is Write for a string.
func (c *Chunk) WriteString(s string) (int, error) {
	c.out = append(c.out, s...)
	return len(s), nil
}

// Written is what Write has gathered for this chunk.
func (c *Chunk) Written() []byte { return c.out }

// Reset makes c ready for the next run of bytes and keeps its memory; for
// whoever calls handlers: the engine, a chain, a test. It clears Cut.
func (c *Chunk) Reset(data []byte, end bool) {
	c.Data, c.End, c.Cut, c.out = data, end, false, c.out[:0]
}
