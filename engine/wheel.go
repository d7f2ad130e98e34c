package engine

import "time"

// tickLength is the wheel's grain.
const tickLength = 100 * time.Millisecond

// wheel is a coarse timer wheel of pairs. Its lists run through the pair records. Activity does not
// touch it: it only notes the tick in the record, and a timer that fires early is armed again. A
// pair without deadlines is not in the wheel.
type wheel struct {
	buckets [256]int32 // slot + 1 of the first pair; 0: none
	count   int
	tick    uint32 // up to which expire has looked
}

// maxTicks is the longest wait, 3.4 years: the wheel compares ticks as signed differences of 32
// bits.
const maxTicks = 1 << 30

// ticks is d in ticks, rounded up, and at most maxTicks.
func ticks(d time.Duration) uint32 {
	switch {
	case d <= 0:
		return 0
	case d >= maxTicks*tickLength:
		return maxTicks
	}
	return uint32((d + tickLength - 1) / tickLength)
}

// arm puts p on the list for tick due, taking it off another first.
func (w *wheel) arm(t *table, p *pair, due uint32) {
	w.disarm(t, p)
	if int32(due-w.tick) <= 0 {
		due = w.tick + 1 // a deadline in the past fires next
	}
	b := due % uint32(len(w.buckets))
	p.due, p.prev, p.next = due, -int32(b)-1, w.buckets[b]
	if p.next != 0 {
		t.at(p.next - 1).prev = p.slot + 1
	}
	w.buckets[b] = p.slot + 1
	w.count++
}

// disarm takes p out of the wheel, if it is in it.
func (w *wheel) disarm(t *table, p *pair) {
	switch {
	case p.prev == 0:
		return
	case p.prev < 0:
		w.buckets[-p.prev-1] = p.next
	default:
		t.at(p.prev - 1).next = p.next
	}
	if p.next != 0 {
		t.at(p.next - 1).prev = p.prev
	}
	p.next, p.prev = 0, 0
	w.count--
}

// expire calls fire for every pair whose due tick is now or past. Each is disarmed before that,
// and fire may arm it again.
func (w *wheel) expire(t *table, now uint32, fire func(*pair)) {
	if int32(now-w.tick) > int32(len(w.buckets)) {
		w.tick = now - uint32(len(w.buckets)) // one round sees every bucket
	}
	for w.tick != now && int32(now-w.tick) > 0 {
		w.tick++
		for slot := w.buckets[w.tick%uint32(len(w.buckets))]; slot != 0; {
			p := t.at(slot - 1)
			slot = p.next
			if int32(p.due-now) <= 0 {
				w.disarm(t, p)
				fire(p)
			}
		}
	}
}

// wait is the number of ticks until the next bucket that is not empty, or -1 if all are. It may
// be too early by whole rounds of the wheel, never too late.
func (w *wheel) wait() int {
	if w.count == 0 {
		return -1
	}
	for n := 1; n <= len(w.buckets); n++ {
		if w.buckets[(w.tick+uint32(n))%uint32(len(w.buckets))] != 0 {
			return n
		}
	}
	return len(w.buckets)
}
