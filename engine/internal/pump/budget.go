package pump

import (
	"math"
	"sync/atomic"
)

// settleAt is how far a loop's account may differ from the common one. By so much, for each loop,
// the limit may be exceeded for a moment.
const settleAt = 128 << 10

// Budget is a loop's view of the memory limit, which is one number for all loops. A loop keeps its
// own account, and settles the difference with the common one before it waits, and whenever it is
// large. All numbers are bytes.
type Budget struct {
	Limit   int64
	Common  *atomic.Int64 // charged by all loops
	Used    int64         // by this loop: pipes by capacity, and the chunks of queues
	charged int64         // what of Used the common account has
	others  int64         // what the other loops were charged when the common account was last read
}

// Look reads the common account, once per wake-up.
func (b *Budget) Look() { b.others = b.Common.Load() - b.charged }

// Settle brings the loop's account and the common one together.
func (b *Budget) Settle() {
	if d := b.Used - b.charged; d != 0 {
		b.others = b.Common.Add(d) - b.Used
		b.charged = b.Used
	}
}

// free is what is left.
func (b *Budget) free() int64 {
	if d := b.Used - b.charged; d > settleAt || d < -settleAt {
		b.Settle()
	}
	return b.Limit - b.others - b.Used
}

// room is how many bytes a pump may take now. It may hold no more than the high watermark, and no
// more than is left of the budget: as memory runs out, those that hold most stop first, and those
// that hold little go on.
func (e *Env) room(d *Pump) int {
	free := e.Budget.free()
	if e.Unbounded {
		return int(min(max(free, 0), math.MaxInt32))
	}
	high, _ := d.watermarks(e)
	return int(min(int64(high), free)) - int(d.Pending)
}
