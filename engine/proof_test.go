package engine

import (
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine/internal/pump"
)

// loopWithPair is a loop that does not run, and an open pair without sockets.
func loopWithPair(t *testing.T) (*loop, *pair) {
	l := oneLoop(t)
	l.clock()
	p := l.pairs.take()
	t.Cleanup(func() { l.pairs.put(p) })
	p.state = stateOpen
	return l, p
}

// TestOnlyBulkIsModerated: what proves a direction to be bulk, and what does not. Each
// step is some bytes that a turn took, after some time, in one of the directions.
func TestOnlyBulkIsModerated(t *testing.T) {
	type step struct {
		after time.Duration
		side  side
		bytes int
	}
	repeat := func(n int, steps ...step) (all []step) {
		for range n {
			all = append(all, steps...)
		}
		return all
	}
	const ms = time.Millisecond
	fast := repeat(20, step{ms, upstream, 256 << 10})
	for _, c := range []struct {
		name  string
		steps []step
		want  bool
	}{
		{"2 Gbit/s", fast, true},
		{"1 Gbit/s", repeat(1000, step{ms, upstream, 125_000}), false},
		{"less than a proof", fast[:15], false},
		{"fast, with a word of the other side now and then", repeat(100, append([]step{{0, downstream, 1}}, fast[:10]...)...), false},
		{"replies of 64 KiB, one after the other", repeat(1000, step{ms / 10, downstream, 100}, step{ms / 10, upstream, 64 << 10}), false},
		{"fast after an hour of little", append(repeat(3600, step{time.Second, upstream, 100}), repeat(40, fast[0])...), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, p := loopWithPair(t)
			for _, s := range c.steps {
				l.now = l.now.Add(s.after)
				p.dir[s.side].Bytes += uint64(s.bytes)
				l.noteRun(p, s.side, s.bytes)
			}
			if got := p.dir[upstream].Is(pump.Moderated); got != c.want {
				t.Errorf("moderated: %v, want %v", got, c.want)
			}
			if p.dir[downstream].Is(pump.Moderated) {
				t.Error("the other direction is moderated")
			}
		})
	}
}

// TestModerationEndsWhenNothingIsTaken: the source has more, and its sink has stopped. The
// timer of the moderation must not run on.
func TestModerationEndsWhenNothingIsTaken(t *testing.T) {
	l, p := loopWithPair(t)
	d := &p.dir[upstream]
	d.Set(pump.Readable | pump.Paused)
	l.beginModeration(p, upstream)
	for range 3 {
		d.Bytes++
		l.now = l.now.Add(coalesceTimeout / 2)
		l.moderate()
		if !d.Is(pump.Moderated) {
			t.Fatal("moderation ended while bytes were taken")
		}
	}
	l.now = l.now.Add(coalesceTimeout)
	l.moderate()
	if d.Is(pump.Moderated) || len(l.moderations) > 0 {
		t.Errorf("moderated %v, %d on the list", d.Is(pump.Moderated), len(l.moderations))
	}
}
