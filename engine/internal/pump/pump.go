// Package pump moves the bytes of one direction of a relayed connection from one socket to
// another: through a pipe (splice), through chunks in user space, or past a handler.
//
// A Pump knows neither the other direction nor the event loop. What it borrows, it gets as one
// environment (Env); what has happened, it returns (Result), and package engine decides what
// follows. It never blocks, and allocates nothing while it moves bytes.
//
//	pump.go     the record: latches, flags, and the verbs that change them
//	turn.go     what a pump does when something may have changed; watermarks
//	read.go     from the source, on each path
//	write.go    to the sink; what the sink does not take
//	note.go     what the kernel's answers say: of the source, of the sink
//	store.go    where pending bytes wait: a queue of chunks or a pipe
//	handler.go  the path that an interceptor's handler sits on
//	run.go      runs of bytes in one direction, and when they are bulk
//	budget.go   the memory limit
//	env.go      Env, Ends, Result
//
// Everything belongs to one event loop: no function is safe for concurrent use. The package is
// for package engine only.
package pump

import "github.com/tprelay/tprelay/engine/internal/chunks"

// Pump is one direction of a connection:
//
//	          +--- wants to read: !EOF && !Paused && !Full && !Starved ---+
//	source ---| read or splice in |----- pending -----| write or splice out |--- sink
//	          +--- may: Readable latch                may: Writable latch --+
//
//	             pending >= high                        pending <= low
//	 reading ---------------------> Paused    Paused -------------------> reading
//	             pipe takes no more                     pending == 0
//	 reading ---------------------> Full      Full ---------------------> reading
//	             memory limit reached                   next tick, or pending == 0
//	 reading ---------------------> Starved   Starved ------------------> reading
//	             source's FIN                           pending == 0: pass the FIN on
//	 reading ---------------------> EOF       EOF ----------------------> FINSent
//
// Events set the latches. Only what the kernel says when it is asked to move something clears
// them: an event is not repeated, so a latch that is cleared without the kernel's word hangs the
// pair. To pause is not to read, and costs nothing.
//
// Valid combinations (Check looks at them):
//
//	store      pending  besides
//	none       0
//	queue      > 0
//	pipe,      > 0      splice is the path; or the path has changed since, and Full is set
//	large pipe          until the pipe is empty
//
//	flag       implies
//	FINCame    nothing was cut off in front of the FIN
//	FINSent    EOF or Closing, and nothing is pending
//	Handled    not Detached, and no pipe
//	Detached   not Handled
//
// A Pump has no pointers, so that the garbage collector never looks at records.
type Pump struct {
	Bytes        uint64 // that the sink's socket has accepted
	Messages     uint64 // writes that it took
	Pending      uint32 // bytes read from the source, not yet accepted by the sink
	PendingLimit uint32 // the most that may be pending while throttled; 0: the watermark alone counts
	Pauses       uint32 // times that it has stalled
	stalledAt    uint32 // tick
	stalledFor   uint32 // ticks, in all
	run          uint32 // bytes since the other direction carried any
	runAt        uint32 // when they began, in milliseconds of the loop's clock
	id           int32  // of the pipe or queue that holds the pending bytes; -1: none
	flags        Flags
	store        store
	phase        phase // of the run
}

// New is a pump with nothing pending.
func New() Pump { return Pump{id: -1} }

// Flags are what is known of a pump's ends, and what it was told to do.
type Flags uint32

const (
	// Latches.
	Readable Flags = 1 << iota // the source may have bytes, a FIN or an error
	Writable                   // the sink may take bytes

	// What is known of the source.
	Ending  // a FIN has come or will: a short read does not mean that the source is empty
	FINCame // what has come is a FIN, and not a reset
	Urgent  // urgent data has come: the same holds for short reads, and splice(2) sticks at it
	EOF     // the source has been read to its end
	Broken  // the source's connection has failed

	// Why it does not read.
	Paused  // pending reached the high watermark
	Full    // the pipe took no more, or bytes wait behind it in a queue: empty it first
	Starved // no memory was left to read into; tried again each tick

	// Statistics.
	Stalled    // it would read now, but for its sink
	HasStalled // it has since the last tick

	// How it ends.
	FINSent // the sink was sent a FIN, or has failed
	Closing // a handler closed: pass on a FIN when nothing is pending, discard what still comes

	// Which path the bytes take.
	Bulk           // many bytes at a time: splice. Few go through the scratch buffer
	WantsLargePipe // more than an ordinary pipe holds at a time
	Refused        // a socket refuses splice
	Handled        // a handler sees the bytes
	Detached       // a handler has let go

	// Flow control, for package engine.
	Watched   // it stalled lately, and its sink is evaluated each tick
	Throttled // through its sockets' buffers
	Moderated // bulk at full speed: the source wakes the loop for a lot only
	Metered   // it moved a lot lately, and its rate is measured each tick

	// Acknowledgements.
	ACKHeld  // the sink's handshake is acknowledged with the first bytes
	DelayACK // the last reply was late: ask the source's kernel to leave acknowledgements to replies
)

// Is reports whether one of the flags is set.
func (d *Pump) Is(f Flags) bool { return d.flags&f != 0 }

// Set and Clear are for what the pair or flow control decides. The verbs below are for what the
// kernel says.
func (d *Pump) Set(f Flags)   { d.flags |= f }
func (d *Pump) Clear(f Flags) { d.flags &^= f }

// MayRead notes that the source may have something: an event said so, or it is to be found out.
func (d *Pump) MayRead() { d.flags |= Readable }

// MayWrite notes that the sink may take bytes.
func (d *Pump) MayWrite() { d.flags |= Writable }

// cannotRead notes that the source is empty: EAGAIN, or a short read that proves it.
func (d *Pump) cannotRead() { d.flags &^= Readable }

// cannotWrite notes that the sink is full: EAGAIN, or a short write.
func (d *Pump) cannotWrite() { d.flags &^= Writable }

// WillEnd notes that a FIN has come or will.
func (d *Pump) WillEnd() { d.flags |= Ending }

// SawFIN notes that a FIN has come on the source's connection, and nothing else.
func (d *Pump) SawFIN() {
	if !d.Is(EOF) { // otherwise reading has found out, or was cut short in front of it
		d.flags |= FINCame
	}
}

// SawUrgent notes urgent data. splice(2) neither passes it nor stops in front of it in a way that
// could be told from an empty socket.
func (d *Pump) SawUrgent() { d.flags |= Urgent }

// SawFailure notes that the source's connection has failed. Bytes may still be read.
func (d *Pump) SawFailure() { d.flags |= Broken }

// sawEnd notes that a read has met the end of the stream. That is a FIN, unless the connection has
// failed: then it is known whether a FIN has come.
func (d *Pump) sawEnd() {
	if d.flags |= EOF; !d.Is(Broken) {
		d.flags |= FINCame
	}
}

// cutShort notes that nothing more can be read, and that what was read is not all. An RST follows,
// although a FIN may have come behind the bytes that are lost.
func (d *Pump) cutShort() {
	d.flags |= EOF
	d.flags &^= FINCame
}

// DrainSource prepares for reading what a source that has failed had sent before.
func (d *Pump) DrainSource() { d.flags |= Readable | Ending }

// SinkGone ends the pump, because its sink's connection has failed. What is pending is dropped.
func (d *Pump) SinkGone(e *Env) {
	d.Release(e)
	d.flags |= EOF | FINSent
	d.flags &^= Readable | Writable | Paused | Full
}

// CutOff reports that the source has failed, and that no FIN had come. After a FIN the other side
// has all there is: it gets the FIN, and the RST behind it. Errors do not tell: a socket reports
// each once, and reads then say 0 as after a FIN.
func (d *Pump) CutOff() bool { return d.Is(Broken) && !d.Is(FINCame) }

// Done reports that the source was read to its end, and that the FIN was passed on.
func (d *Pump) Done() bool { return d.flags&(EOF|FINSent) == EOF|FINSent }

// FINDue reports that it is time to pass a FIN on.
func (d *Pump) FINDue() bool {
	return d.Is(EOF|Closing) && d.Pending == 0 && !d.Is(FINSent) && !d.CutOff()
}

// Drained reports that nothing more will come, and that nothing is pending.
func (d *Pump) Drained() bool { return d.Is(EOF|Closing) && d.Pending == 0 }

// Idle reports that a turn would change nothing: nothing has come, nothing is pending, and nothing
// is to be ended.
func (d *Pump) Idle() bool {
	return d.Pending == 0 && !d.Is(Readable|EOF|Closing|Paused|Full|Starved|Stalled|Throttled)
}

// CanRead reports that the source may have something, and that the pump wants it.
func (d *Pump) CanRead() bool { return d.flags&(Readable|EOF|Paused|Full|Starved) == Readable }

// CanWrite reports that bytes are pending, and that the sink may take them.
func (d *Pump) CanWrite() bool { return d.Pending > 0 && d.Is(Writable) }

// Buffered reports that the bytes go through chunks in user space, and not through pipes.
func (d *Pump) Buffered(e *Env) bool { return e.NoSplice || d.Is(Handled|Urgent|Refused) }

// RefusesSplice notes that bytes must go through chunks, for as long as the pump exists.
func (d *Pump) RefusesSplice() { d.flags |= Refused }

// StalledTicks is for how many ticks the pump has stalled in all.
func (d *Pump) StalledTicks(now uint32) uint32 {
	if d.Is(Stalled) {
		return d.stalledFor + now - d.stalledAt
	}
	return d.stalledFor
}

// Resume goes on with the counts of another process's pump.
func (d *Pump) Resume(bytes, messages uint64, pauses, stalledTicks uint32) {
	d.Bytes, d.Messages, d.Pauses, d.stalledFor = bytes, messages, pauses, stalledTicks
}

func (d *Pump) queue() chunks.ID { return chunks.ID(d.id) }
