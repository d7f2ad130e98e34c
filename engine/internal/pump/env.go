package pump

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/chunks"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/splice"
)

// Env is what the pumps of one event loop borrow.
type Env struct {
	Pipes      *splice.Pool
	LargePipes *splice.Pool // for pumps that are moderated, or that fill ordinary pipes
	PipeSize   int          // of ordinary pipes, in bytes
	Queues     chunks.Queues
	Budget     Budget
	Count      *Counters
	High, Low  int // watermarks, in bytes

	NoSplice  bool // all bytes go through chunks
	NoPipes   bool // for now: descriptors are for others
	Unbounded bool // the watermarks do not count, and the memory limit alone bounds what is pending

	// Of the present wake-up.
	Tick        uint32
	Interactive bool // a pair of the loop is in a dialogue, whose next message must not wait for large moves

	scratch []byte // held bytes of a handler, then maxRead to read into
	chunk   intercept.Chunk
	tcp     unix.TCPInfo
}

// Init makes the scratch buffer.
func (e *Env) Init() { e.scratch = make([]byte, intercept.MaxHold+maxRead) }

// Counters are statistics of the loop, under the names that engine.Stats has for them.
type Counters struct {
	Pauses, Starved                 uint64
	Splices, SpliceRefused          uint64
	SourceEmpty, PipeFull, SinkFull uint64
	Pending                         int64 // bytes, now
}

// Ends are the two sockets of a pump, and what it cannot know of them by itself.
type Ends struct {
	Source, Sink int  // descriptors
	Shut         bool // a FIN was sent to the source, by the other direction
	Tap          *Tap // the handler; nil if there is none
}

// Tap is a handler that sees the bytes of a pump.
type Tap struct {
	Handler intercept.Handler
	held    chunks.ID // what it holds back; -1: nothing
}

// NewTap is a tap that holds nothing back.
func NewTap(h intercept.Handler) Tap { return Tap{h, -1} }

// Result is what has happened in a turn.
type Result struct {
	Events
	Taken     int    // bytes from the source
	Delivered [2]int // bytes that the sink has accepted: of a spliced pump, of a buffered one
	SourceErr error  // with SourceFailed; nil: the socket may still have it
	SinkErr   error  // with SinkFailed
}

// Events are a set of things that have happened in a turn.
type Events uint16

const (
	Again Events = 1 << iota // more could be moved at once
	// BrokenOff: many bytes came at once, and the source must be metered before more are read.
	// Call Turn again.
	BrokenOff
	WaitsForMemory // Starved is set: try again with the next tick
	RearmSink      // the sink has enough unsent: ask for an event when it has less
	StallBegan
	StallEnded
	SourceFailed  // its connection is broken. What came from it before goes on
	SinkFailed    // its connection is broken. The turn is over
	HandlerClosed // the pair is to end with FINs, when nothing is pending
	HandlerReset  // the pair is to end at once. The turn is over
	HeldTooMuch   // with HandlerReset: it held back more than intercept.MaxHold
	Inconsistent  // the kernel has taken bytes back. The turn is over, and so is the pair
)

// Has reports whether one of the events is in the set.
func (e Events) Has(o Events) bool { return e&o != 0 }

// turn is a turn in progress.
type turn struct {
	*Env
	Ends
	result Result
}

func (t *turn) note(e Events) { t.result.Events |= e }

// sinkFailed notes that the sink has refused bytes. Always false: the turn is over.
func (t *turn) sinkFailed(err error) bool {
	t.note(SinkFailed)
	t.result.SinkErr = err
	return false
}

// sourceFailed notes that the source's connection is broken, in a way that nothing more comes.
func (t *turn) sourceFailed(d *Pump, err error) {
	d.cutShort()
	d.SawFailure()
	t.note(SourceFailed)
	t.result.SourceErr = err
}
