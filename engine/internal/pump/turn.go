package pump

import (
	"math"

	"github.com/tprelay/tprelay/internal/sock"
)

const (
	// TurnBudget is how many bytes a pump may take from its source in one turn, before others
	// have theirs.
	TurnBudget = 256 << 10
	// minRead is the least room in memory that is worth a read. With less, and nothing pending,
	// only what the sink takes at once is read.
	minRead = 4 << 10
)

// budget is TurnBudget. For a pump whose source has collected more before it woke the loop, it is
// as much as that, unless a dialogue of another pair would have to wait.
func (d *Pump) budget(t *turn) int {
	if d.atFullSpeed(t) {
		return Lowat
	}
	return TurnBudget
}

// readSize is the most that one read takes into user space.
func (d *Pump) readSize(t *turn) int {
	if d.atFullSpeed(t) {
		return maxRead
	}
	return usualRead
}

func (d *Pump) atFullSpeed(t *turn) bool { return d.Is(Moderated) && !t.Interactive }

// Turn moves what can be moved now: it flushes what is pending, then reads, until a latch is down,
// the pump is paused, or its budget is spent. Taken is 0, or Result.Taken of a turn that was broken
// off and goes on.
func (d *Pump) Turn(e *Env, ends Ends, taken int) Result {
	t := turn{Env: e, Ends: ends}
	t.result.Taken = taken
	if d.moves(&t) {
		if taken := t.result.Taken; taken > 0 && taken < minRead {
			d.Clear(Bulk | WantsLargePipe) // what comes in crumbs goes through the scratch buffer
		}
		t.note(d.noteStall(e))
	}
	return t.result
}

// moves is the loop of a turn. False: the turn was broken off, or it is over.
func (d *Pump) moves(t *turn) bool {
	for {
		if d.flags&(Throttled|Writable) == Throttled|Writable && d.enoughUnsent(t) {
			d.cannotWrite()
			t.note(RearmSink)
		}
		if d.CanWrite() && !d.flush(t) {
			return false
		}
		d.pauseOrResume(t.Env)
		if !d.CanRead() {
			return true
		}
		if t.result.Taken >= d.budget(t) {
			t.note(Again)
			return true
		}
		room := t.room(d)
		lowMemory := room < minRead && d.Pending == 0
		if lowMemory && !d.Is(Writable) || room <= 0 && !lowMemory {
			d.Set(Starved)
			t.Count.Starved++
			t.note(WaitsForMemory)
			return true
		}
		if t.result.Taken > 0 && d.Is(Bulk) {
			d.Set(WantsLargePipe)
		}
		n, ok := 0, true
		if lowMemory {
			n, ok = d.readLowMemory(t)
		} else {
			n, ok = d.read(t, room)
		}
		t.result.Taken += n
		if !ok || t.result.Has(BrokenOff) {
			return false
		}
	}
}

// watermarks are those of the environment, or lower ones while throttled.
func (d *Pump) watermarks(e *Env) (high, low int) {
	if e.Unbounded {
		return math.MaxInt32, math.MaxInt32
	}
	if d.PendingLimit > 0 {
		return int(d.PendingLimit), int(d.PendingLimit) / 4
	}
	return e.High, e.Low
}

// pauseOrResume pauses at the high watermark, and ends pauses when enough has left.
func (d *Pump) pauseOrResume(e *Env) {
	high, low := d.watermarks(e)
	switch pending := int(d.Pending); {
	case pending == 0:
		d.Clear(Paused | Full | Starved)
	case pending >= high:
		d.Set(Paused)
	case pending <= low:
		d.Clear(Paused)
	}
}

// noteStall keeps the statistics of pauses: a pump stalls when it would read, but for its sink.
func (d *Pump) noteStall(e *Env) Events {
	now := d.Is(Readable) && !d.Is(EOF) && d.Is(Paused|Full) && !d.Is(Writable)
	switch {
	case now && !d.Is(Stalled):
		d.Set(Stalled | HasStalled)
		d.Pauses++
		d.stalledAt = e.Tick
		e.Count.Pauses++
		return StallBegan
	case !now && d.Is(Stalled):
		d.Clear(Stalled)
		d.stalledFor += e.Tick - d.stalledAt
		return StallEnded
	}
	return 0
}

// enoughUnsent reports that the sink has as many unsent bytes as the throttle lets it have. The
// kernel says so only when it would begin a new segment, and one that it builds is up to 64 KiB
// long. So it is asked.
func (d *Pump) enoughUnsent(t *turn) bool { return sock.NotSent(t.Sink) >= int(d.PendingLimit) }
