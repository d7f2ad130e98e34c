package pump

import (
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/splice"
)

// TestPumpMatchesAByteStream lets chance call what a loop calls, in any order: events come late,
// sockets and pipes are small, memory and pipes come and go, the sink begins to refuse splice,
// urgent data is announced. After every step the pump must not contradict itself, and what has
// arrived be what was sent; in the end all of it must have arrived.
//
// For longer: go test -run TestPumpMatchesAByteStream -rapid.checks=20000 ./engine/internal/pump
func TestPumpMatchesAByteStream(t *testing.T) {
	rapid.Check(t, modelRun)
}

func modelRun(rt *rapid.T) {
	r := newRig(rt, rapid.SampledFrom([]int{0, 4 << 10, 32 << 10}).Draw(rt, "send buffers"))
	r.env.High = rapid.SampledFrom([]int{4 << 10, 64 << 10, 1 << 20}).Draw(rt, "high watermark")
	r.env.Low = rapid.SampledFrom([]int{1, r.env.High / 4, r.env.High - 1}).Draw(rt, "low watermark")
	r.env.PipeSize = rapid.SampledFrom([]int{4 << 10, 64 << 10}).Draw(rt, "pipe size")
	r.env.Pipes = splice.NewPool(splice.Limits{Size: r.env.PipeSize, Pipes: 2, Keep: 1})
	limit := r.env.Budget.Limit
	var taken []splice.ID
	giveBack := func() {
		for _, id := range taken {
			r.env.Pipes.Put(id)
		}
		taken = nil
	}
	defer giveBack()
	if rapid.Bool().Draw(rt, "handled") {
		detachAt := rapid.IntRange(0, 200_000).Draw(rt, "detach")
		seen := 0
		r.handle(intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
			if seen += len(c.Data); detachAt > 0 && seen > detachAt {
				return intercept.Detach
			}
			if len(c.Data) < 3000 {
				return intercept.Hold
			}
			return intercept.Forward
		}))
	}
	check := func(result Result) {
		if result.Has(SourceFailed | over) {
			rt.Fatalf("%+v: %v", result, &r.Pump)
		}
	}
	rt.Repeat(map[string]func(*rapid.T){
		"": func(rt *rapid.T) {
			if err := r.Check(r.env); err != nil {
				rt.Fatal(err)
			}
		},
		"write":       func(rt *rapid.T) { r.write(rapid.IntRange(1, 100_000).Draw(rt, "bytes")) },
		"write crumb": func(rt *rapid.T) { r.write(rapid.IntRange(1, 100).Draw(rt, "bytes")) },
		"read":        func(rt *rapid.T) { r.read(rapid.IntRange(1, 200_000).Draw(rt, "bytes")) },
		"events":      func(*rapid.T) { r.events() },
		"turn":        func(*rapid.T) { check(r.turn()) },
		"round":       func(*rapid.T) { r.events(); check(r.turn()) },
		"tick":        func(*rapid.T) { r.env.Tick++; r.Clear(Starved) },
		"interactive": func(rt *rapid.T) { r.env.Interactive = rapid.Bool().Draw(rt, "interactive") },
		"moderate": func(rt *rapid.T) {
			if r.Clear(Moderated); rapid.Bool().Draw(rt, "moderated") && !r.Is(Throttled) {
				r.Set(Moderated)
			}
		},
		"throttle": func(rt *rapid.T) {
			r.Clear(Throttled)
			r.PendingLimit = 0
			if rapid.Bool().Draw(rt, "throttled") && !r.Is(Moderated) {
				r.Set(Throttled)
				r.PendingLimit = uint32(rapid.IntRange(1, 50_000).Draw(rt, "limit"))
			}
		},
		"refuse splice": func(rt *rapid.T) {
			if rapid.IntRange(0, 9).Draw(rt, "really") == 9 {
				_, _ = unix.FcntlInt(uintptr(r.ends.Sink), unix.F_SETFL, unix.O_NONBLOCK|unix.O_APPEND)
			}
		},
		"announce urgent data": func(rt *rapid.T) {
			if rapid.IntRange(0, 9).Draw(rt, "really") == 9 {
				r.SawUrgent()
			}
		},
		"change the memory limit": func(rt *rapid.T) {
			r.env.Budget.Limit = rapid.SampledFrom([]int64{limit, 0, 5000, 100_000, -1}).Draw(rt, "limit")
		},
		"take a pipe": func(*rapid.T) {
			if id, ok := r.env.Pipes.Get(); ok {
				taken = append(taken, id)
			}
		},
		"give pipes back": func(*rapid.T) { giveBack() },
		"move to a queue": func(rt *rapid.T) {
			if err := r.EmptyPipe(r.env); err != nil {
				rt.Fatal(err)
			}
		},
	})
	r.env.Budget.Limit = limit
	giveBack()
	if err := unix.Shutdown(r.client, unix.SHUT_WR); err != nil {
		rt.Fatal(err)
	}
	r.wait("all bytes, and the FIN", func() bool {
		r.Clear(Starved)
		check(Result{Events: r.settle()})
		r.read(1 << 20)
		return r.FINDue() && r.got == r.sent
	})
}
