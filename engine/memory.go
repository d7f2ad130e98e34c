package engine

import "math"

// The memory budget is one number for all loops. A loop keeps its own account
// and adds the difference to the common one once per wait, so what it knows of
// the others may be one turn old.

// free is what is left of the budget.
func (l *loop) free() int64 {
	return l.engine.options.MemoryLimit - l.others - l.count.memory
}

// room is how many bytes a direction may take now. It may hold no more than the
// high watermark, and no more than is left of the budget: as memory runs out,
// those who hold most stop first, and those who hold little go on.
func (l *loop) room(d *direction) int {
	free := l.free()
	if l.engine.options.NoFlowControl {
		return int(min(max(free, 0), math.MaxInt32))
	}
	high, _ := l.marks(d)
	return int(min(int64(high), free)) - int(d.pending)
}

// starve stops reading until memory comes free: the direction is tried again when
// it has nothing pending any more, and with each tick.
func (l *loop) starve(p *pair, d *direction) {
	d.set(starved)
	l.count.starved++
	l.hungry = append(l.hungry, reference{p.slot, p.generation})
}

// feed tries the starved directions again.
func (l *loop) feed() {
	hungry := l.hungry
	l.hungry = l.hungry[len(l.hungry):]
	for _, r := range hungry {
		if p := l.find(r); p != nil {
			p.dir[upstream].clear(starved)
			p.dir[downstream].clear(starved)
			l.queue(p)
		}
	}
	if len(l.hungry) == 0 {
		l.hungry = hungry[:0]
	}
}
