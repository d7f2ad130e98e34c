package pump

import "time"

// A run is the bytes that a direction carries without a word of the other one. Three mechanisms
// are driven by it: it is looked for a queue in front of the sink while a run begins, a run that
// proves to be bulk is moderated, and the end of a run says how long a reply took.
//
//	measuring --> settled   ProvenBytes have come, but not within provenTime: the sink is not
//	                        looked at any more
//	          --> proven    they have, within provenTime: bulk. After that an eighth of the bytes
//	                        in an eighth of the time is enough, as long as the run lasts: a sender
//	                        that shares its CPU falls silent for some milliseconds
//
// A word of the other direction ends the run. A pump that is moderated or throttled is not
// measured.
type phase uint8

const (
	measuring phase = iota
	settled
	proven
)

const (
	// ProvenBytes within provenTime are 2.2 Gbit/s, at which Lowat bytes take two times the
	// engine's coalesceTimeout.
	provenBytes = 4 << 20
	provenTime  = 15 * time.Millisecond
	// Lowat is how many bytes a moderated source collects before it wakes the loop (SO_RCVLOWAT).
	Lowat = 1 << 20
	// probeEvery is after how many bytes of a run its sink is looked at, and probeUntil for how
	// many: a queue that comes later lets the pump stall.
	probeEvery = 32 << 10
	probeUntil = 1 << 20
)

// RunEvents are what a run calls for.
type RunEvents uint8

const (
	Moves RunEvents = 1 << iota // it moves a lot: meter it
	Probe                       // look for a queue in front of the sink
	IsBulk
)

// NoteRun notes that a turn took n bytes from the source, at a time in milliseconds.
func (d *Pump) NoteRun(n int, now uint32) (events RunEvents) {
	if d.Is(Moderated | Throttled) {
		return 0
	}
	if d.run == 0 {
		d.runAt = now
	}
	enough, within := uint32(provenBytes), provenTime
	if d.phase == proven {
		enough, within = enough/8, within/8
	}
	before := d.run
	d.run += uint32(n)
	if before/probeEvery != d.run/probeEvery {
		events |= Moves
		if d.run < probeUntil && d.phase == measuring {
			events |= Probe
		}
	}
	if d.run < enough {
		return events
	}
	if time.Duration(now-d.runAt)*time.Millisecond <= within {
		d.phase = proven
		events |= IsBulk
	} else if d.phase == measuring {
		d.phase = settled
	}
	d.run = 0
	return events
}

// Runs reports whether the direction is in a run.
func (d *Pump) Runs() bool { return d.run > 0 || d.phase != measuring }

// EndRun ends the run, because the other direction has carried something. It returns how long
// after the run's beginning that was, in milliseconds, and false if that is not known.
func (d *Pump) EndRun(now uint32) (took uint32, known bool) {
	took, known = now-d.runAt, d.run > 0
	d.run, d.phase = 0, measuring
	return took, known
}
