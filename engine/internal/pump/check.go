package pump

import (
	"fmt"
	"strings"
)

// Check looks for contradictions in what the pump knows, and between that and where its bytes
// wait. It is for tests.
func (d *Pump) Check(e *Env) error {
	pending := 0
	switch d.store {
	case storeQueue:
		pending = e.Queues.Len(d.queue())
	case storePipe, storeLargePipe:
		pending = d.pipe(e).Pending()
	}
	switch {
	case pending != int(d.Pending):
		return fmt.Errorf("%d bytes pending, %d in store %d", d.Pending, pending, d.store)
	case (d.store == storeNone) != (d.Pending == 0), (d.store == storeNone) != (d.id < 0):
		return fmt.Errorf("%d bytes pending in store %d, id %d", d.Pending, d.store, d.id)
	case d.inPipe() && d.Is(Handled):
		return fmt.Errorf("a handler sees the bytes, and they are in a pipe")
	case d.Is(Handled) && d.Is(Detached):
		return fmt.Errorf("the handler has let go, and sees the bytes")
	case d.Is(FINSent) && d.Pending > 0:
		return fmt.Errorf("a FIN was sent in front of %d bytes", d.Pending)
	case d.Is(FINSent) && !d.Is(EOF|Closing):
		return fmt.Errorf("a FIN was sent, and the source has not ended")
	}
	return nil
}

// Stored is the memory of the pump's pipe or queue, in bytes, and which of them it has. It is for
// tests.
func (d *Pump) Stored(e *Env) (memory int64, pipe, queue bool) {
	switch {
	case d.store == storeNone:
		return 0, false, false
	case d.inPipe():
		return int64(d.pipe(e).Size()), true, false
	}
	return int64(e.Queues.Size(d.queue())), false, true
}

// Stored is the memory of what the handler holds back, and whether there is any. It is for tests.
func (x *Tap) Stored(e *Env) (memory int64, held bool) {
	if x.held < 0 {
		return 0, false
	}
	return int64(e.Queues.Size(x.held)), true
}

// String names the flags.
func (d *Pump) String() string {
	names := [...]string{"Readable", "Writable", "Ending", "FINCame", "Urgent", "EOF", "Broken", "Paused", "Full", "Starved",
		"Stalled", "HasStalled", "FINSent", "Closing", "Bulk", "WantsLargePipe", "Refused", "Handled", "Detached",
		"Watched", "Throttled", "Moderated", "Metered", "ACKHeld", "DelayACK"}
	var set []string
	for i, name := range names {
		if d.Is(1 << i) {
			set = append(set, name)
		}
	}
	return strings.Join(set, "+")
}
