package engine

import (
	"os"
	"testing"

	"pgregory.net/rapid"
)

// TestPairsMatchByteStreams lets chance call what a loop calls, in any order: events come
// late and one by one, sockets and pipes are small, memory and pipes come and go, ends
// write, read, finish and break off. After every step the loop must be in order, and what
// has arrived be what was sent; in the end all of it must have arrived, or the reset.
//
// For longer: go test -run TestPairsMatchByteStreams -rapid.checks=20000 ./engine
func TestPairsMatchByteStreams(t *testing.T) {
	before := modelDescriptors(t)
	rapid.Check(t, modelRun)
	if now := modelDescriptors(t); now != before {
		t.Errorf("%d descriptors, before: %d", now, before)
	}
}

func modelDescriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func modelRun(t *rapid.T) {
	high := rapid.SampledFrom([]int{DefaultHighWatermark, 4 << 10, 6000, 64 << 10}).Draw(t, "high watermark")
	o := Options{
		HighWatermark:    high,
		LowWatermark:     rapid.SampledFrom([]int{high / 4, 1, high - 1}).Draw(t, "low watermark"),
		PipeSize:         rapid.SampledFrom([]int{64 << 10, 4 << 10, 8 << 10, 256 << 10}).Draw(t, "pipe size"),
		Pipes:            rapid.SampledFrom([]int{64, 1, 2}).Draw(t, "pipes"),
		NoSplice:         rapid.IntRange(0, 9).Draw(t, "no splice") == 9,
		ConnectTimeout:   -1,
		HalfCloseTimeout: -1,
	}
	if rapid.IntRange(0, 9).Draw(t, "timeouts") == 9 {
		o.ConnectTimeout, o.HalfCloseTimeout, o.IdleTimeout = modelTimeout, modelTimeout, 2*modelTimeout
	}
	receive := rapid.SampledFrom([]int{0, 2 << 10, 8 << 10, 32 << 10}).Draw(t, "receive buffers")
	send := rapid.SampledFrom([]int{0, 2 << 10, 8 << 10, 32 << 10}).Draw(t, "send buffers")
	most := 1 << 20
	if receive+send > 0 {
		most = 100_000 // the kernel needs a timer now and then to bring it through
	}
	w, err := newModelWorld(o, receive, send)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	must := func(err error) {
		if err != nil {
			t.Fatalf("%v\n%v", err, w)
		}
	}
	must(w.openOne(t))
	limit := w.env.Budget.Limit
	w.gentle = rapid.Bool().Draw(t, "gentle")
	actions := map[string]func(*rapid.T){
		"": func(*rapid.T) { must(w.check()) },

		// The ends.
		"open": func(t *rapid.T) {
			if len(w.pairs) == 10 || w.loop.pairs.used == 4 {
				t.Skip()
			}
			must(w.openOne(t))
		},
		"write": func(t *rapid.T) {
			_, _, e := w.pick(t, (*modelEnd).writes)
			n := min(drawSize(t), most)
			must(e.write(n, n))
		},
		"write crumbs": func(t *rapid.T) {
			_, _, e := w.pick(t, (*modelEnd).writes)
			must(e.write(rapid.IntRange(1, 100).Draw(t, "bytes"), 1))
		},
		"urge": func(t *rapid.T) {
			_, _, e := w.pick(t, (*modelEnd).writes)
			must(e.urge())
		},
		"read": func(t *rapid.T) {
			p, s, _ := w.pick(t, (*modelEnd).reads)
			_, err := w.read(p, s, drawSize(t))
			must(err)
		},
		"finish": func(t *rapid.T) {
			if _, _, e := w.pick(t, (*modelEnd).writes); rapid.IntRange(0, 3).Draw(t, "really") == 3 {
				e.finish()
			}
		},
		"break off": func(t *rapid.T) {
			if _, _, e := w.pickSeldom(t); e != nil {
				e.breakOff(w.tick)
			}
		},
		"leave": func(t *rapid.T) {
			if _, _, e := w.pickSeldom(t); e != nil {
				e.leave()
			}
		},
		"refuse splice": func(t *rapid.T) {
			if p, s, _ := w.pickSeldom(t); p != nil {
				w.refuseSplice(p, s)
			}
		},
		"stop reading": func(t *rapid.T) {
			if _, _, e := w.pickSeldom(t); e != nil {
				e.stopReading()
			}
		},

		// The loop.
		"poll": func(t *rapid.T) {
			_, err := w.poll(0)
			must(err)
		},
		"show an event": func(t *rapid.T) {
			if len(w.events) == 0 {
				t.Skip()
			}
			w.showEvent(rapid.IntRange(0, len(w.events)-1).Draw(t, "event"))
		},
		"show all events": func(t *rapid.T) { w.tell() },
		"serve":           func(t *rapid.T) { w.serve(); w.moderate() },
		"rounds": func(t *rapid.T) {
			for range rapid.IntRange(1, 4).Draw(t, "rounds") {
				_, err := w.poll(0)
				must(err)
				w.tell()
				w.serve()
				w.moderate()
			}
		},
		"prove to be bulk": func(t *rapid.T) {
			_, s, _ := w.pick(t, (*modelEnd).writes)
			w.prove(s)
		},
		"wait a moment": func(t *rapid.T) { w.now = w.now.Add(coalesceTimeout); w.moderate() },
		"tick":          func(t *rapid.T) { w.pass(uint32(rapid.SampledFrom([]int{1, 1, 1, 3, 300}).Draw(t, "ticks"))) },

		"hand over": func(t *rapid.T) {
			if len(w.handingOff) == 2 {
				t.Skip()
			}
			must(w.leave(w.pairs[rapid.IntRange(0, len(w.pairs)-1).Draw(t, "pair")]))
		},
		"arrive": func(t *rapid.T) {
			if len(w.handingOff) == 0 {
				t.Skip()
			}
			must(w.arrive(rapid.IntRange(0, len(w.handingOff)-1).Draw(t, "pair")))
		},
		"stay": func(t *rapid.T) {
			if len(w.handingOff) == 0 {
				t.Skip()
			}
			w.stay(rapid.IntRange(0, len(w.handingOff)-1).Draw(t, "pair"))
		},

		// What there is not.
		"change the memory limit": func(t *rapid.T) {
			w.env.Budget.Limit = rapid.SampledFrom([]int64{limit, 0, 5000, 100_000, -1}).Draw(t, "limit")
		},
		"take a pipe": func(t *rapid.T) {
			if id, ok := w.env.Pipes.Get(); ok {
				w.taken = append(w.taken, id)
			}
		},
		"give pipes back": func(t *rapid.T) {
			for _, id := range w.taken {
				w.env.Pipes.Put(id)
			}
			w.taken = nil
		},
	}
	// More often than the others.
	actions["more rounds"], actions["rounds again"] = actions["rounds"], actions["rounds"]
	actions["write more"], actions["write again"] = actions["write"], actions["write"]
	actions["read more"] = actions["read"]
	for range rapid.IntRange(1, 10).Draw(t, "chapters") {
		t.Repeat(actions)
	}
	if rapid.Bool().Draw(t, "memory comes back") {
		w.env.Budget.Limit = limit
	}
	must(w.settle())
	must(w.checkEmpty())
}

// modelTimeout is for worlds in which time can end pairs.
const modelTimeout = 20 * tickLength

// drawSize draws a byte count: from one to more than all buffers hold.
func drawSize(t *rapid.T) int {
	return rapid.SampledFrom(modelSizes).Draw(t, "bytes") + rapid.IntRange(0, 9).Draw(t, "more")
}

var modelSizes = []int{1, 20, modelMSS, 4096, 16 << 10, 40_000, 64 << 10, 100_000, 300 << 10, 1 << 20}

func (w *modelWorld) openOne(t *rapid.T) error {
	var how [2]*behaviour
	for s := range side(2) {
		i := 0
		if rapid.Bool().Draw(t, "looks on") {
			i = rapid.IntRange(0, len(behaviours)-1).Draw(t, "behaviour")
		}
		how[s] = &behaviours[i]
	}
	prefix := 0
	if rapid.IntRange(0, 3).Draw(t, "prefixed") == 3 {
		prefix = rapid.IntRange(1, 50_000).Draw(t, "prefix")
	}
	refused := rapid.IntRange(0, 15).Draw(t, "refused") == 15
	return w.open(how, prefix, refused, rapid.SampledFrom([]int{0, 4 << 10, 64 << 10}).Draw(t, "end's send buffer"))
}

func (e *modelEnd) writes() bool { return e.fd >= 0 && !e.fin && !e.reset }
func (e *modelEnd) reads() bool  { return !e.done() }

// pick draws an end that can do something.
func (w *modelWorld) pick(t *rapid.T, can func(*modelEnd) bool) (*modelPair, side, *modelEnd) {
	type choice struct {
		p *modelPair
		s side
	}
	var choices []choice
	for _, p := range w.pairs {
		for s, e := range p.end {
			if e != nil && can(e) {
				choices = append(choices, choice{p, side(s)})
			}
		}
	}
	if len(choices) == 0 {
		t.Skip()
	}
	c := choices[rapid.IntRange(0, len(choices)-1).Draw(t, "end")]
	return c.p, c.s, c.p.end[c.s]
}

// pickSeldom draws an end for what few pairs survive, or none: most of the time, and
// always in a world that is gentle.
func (w *modelWorld) pickSeldom(t *rapid.T) (*modelPair, side, *modelEnd) {
	if w.gentle || rapid.IntRange(0, 7).Draw(t, "really") != 7 {
		return nil, 0, nil
	}
	return w.pick(t, func(e *modelEnd) bool { return e.fd >= 0 })
}
