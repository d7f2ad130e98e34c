package pump

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

// TestEveryByteArrivesInOrderAndThenTheFIN: through small buffers, so that reads and writes are
// short, and with a server that reads in fits.
func TestEveryByteArrivesInOrderAndThenTheFIN(t *testing.T) {
	onEveryPath(t, func(t *testing.T, prepare func(*rig)) {
		r := newRig(t, 8<<10)
		prepare(r)
		for step := 0; r.sent < len(r.text); step++ {
			r.write(1 + step*7919%50_000)
			if events := r.settle(); events.Has(SourceFailed | over) {
				t.Fatalf("events %b", events)
			}
			r.Clear(Starved) // as a tick does
			if step%3 == 0 {
				r.read(100_000)
			}
		}
		if err := unix.Shutdown(r.client, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		for !r.FINDue() {
			r.settle()
			r.Clear(Starved)
			if n, _ := r.read(1 << 20); n == 0 {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(r.server), Events: unix.POLLIN}}, 1)
			}
		}
		if !r.Is(FINCame) || r.CutOff() || r.Pending != 0 {
			t.Errorf("%v, %d pending", &r.Pump, r.Pending)
		}
		r.wait("the last bytes", func() bool { r.read(1 << 20); return r.got == r.sent })
		if r.Bytes != uint64(r.sent) {
			t.Errorf("%d bytes counted, %d were sent", r.Bytes, r.sent)
		}
	})
}

// TestTakenAndDeliveredAreReturned: what a turn reports adds up to what was moved.
func TestTakenAndDeliveredAreReturned(t *testing.T) {
	r := newRig(t, 0)
	r.arrive(1000)
	r.MayRead()
	r.MayWrite()
	if result := r.turn(); result.Taken != 1000 || result.Delivered != [2]int{1000, 0} || result.Events != 0 {
		t.Errorf("spliced: %+v", result)
	}
	r.env.NoSplice = true
	r.arrive(1000)
	r.MayRead()
	if result := r.turn(); result.Taken != 1000 || result.Delivered != [2]int{0, 1000} {
		t.Errorf("through chunks: %+v", result)
	}
}

// TestLatchesAreClearedByTheKernelOnly: EAGAIN, or a short read or write that proves as much.
func TestLatchesAreClearedByTheKernelOnly(t *testing.T) {
	t.Run("a short read says that the source is empty", func(t *testing.T) {
		r := newRig(t, 0)
		r.arrive(1000)
		r.MayRead()
		r.MayWrite()
		r.turn()
		if r.Is(Readable) || !r.Is(Writable) || r.count.SourceEmpty != 0 {
			t.Errorf("%v, asked %d times", &r.Pump, r.count.SourceEmpty)
		}
	})
	t.Run("but not when a FIN may have come", func(t *testing.T) {
		r := newRig(t, 0)
		r.arrive(1000)
		r.MayRead()
		r.MayWrite()
		r.WillEnd()
		r.turn()
		if r.Is(Readable|EOF) || r.count.SourceEmpty == 0 {
			t.Errorf("%v, asked %d times", &r.Pump, r.count.SourceEmpty)
		}
	})
	t.Run("a source without bytes", func(t *testing.T) {
		r := newRig(t, 0)
		r.MayRead()
		r.MayWrite()
		if result := r.turn(); r.Is(Readable) || !r.Is(Writable) || result.Taken != 0 || r.count.SourceEmpty != 1 {
			t.Errorf("%v, %+v", &r.Pump, result)
		}
	})
	t.Run("a sink without room", func(t *testing.T) {
		onEveryPath(t, func(t *testing.T, prepare func(*rig)) {
			r := newRig(t, 8<<10)
			prepare(r)
			r.fillSink()
			r.arrive(5000)
			r.MayRead()
			r.MayWrite()
			r.turn()
			r.MayWrite() // an event without reason costs one call, and nothing else
			r.turn()
			if r.Is(Writable) && r.Pending > 0 || r.Bytes != 0 {
				t.Errorf("%v, %d pending, %d bytes", &r.Pump, r.Pending, r.Bytes)
			}
		})
	})
	t.Run("a full pipe is no empty source", func(t *testing.T) {
		r := newRig(t, 8<<10)
		paths["one-page pipe"](r)
		r.fillSink()
		r.arrive(4000)
		r.MayRead()
		for range 5 {
			r.arrive(100) // segments of their own, for which the pipe has no slot
		}
		r.turn()
		if !r.Is(Readable) || !r.Is(Full) || r.count.PipeFull == 0 {
			t.Errorf("%v, %d times full", &r.Pump, r.count.PipeFull)
		}
	})
}

// TestFINWaitsForPendingBytes that the sink does not take.
func TestFINWaitsForPendingBytes(t *testing.T) {
	onEveryPath(t, func(t *testing.T, prepare func(*rig)) {
		r := newRig(t, 8<<10)
		prepare(r)
		r.env.Budget.Limit = 64 << 20
		filled := r.fillSink()
		r.arrive(5000)
		if err := unix.Shutdown(r.client, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		r.wait("FIN", func() bool {
			r.settle()
			return r.Is(EOF) || r.Is(Full)
		})
		if r.FINDue() || r.Pending == 0 {
			t.Fatalf("%v, %d pending", &r.Pump, r.Pending)
		}
		b := make([]byte, 64<<10)
		for filled > 0 {
			n, _, err := unix.Recvfrom(r.server, b[:min(filled, len(b))], 0)
			if err == unix.EAGAIN {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(r.server), Events: unix.POLLIN}}, patience)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			filled -= n
		}
		r.wait("FIN due", func() bool { r.settle(); return r.FINDue() })
		r.wait("the bytes", func() bool { r.read(5000); return r.got == 5000 })
	})
}

// TestSourceThatResetsIsReadFirst: what had come before goes on; then the failure is returned, and
// no FIN is due.
func TestSourceThatResetsIsReadFirst(t *testing.T) {
	onEveryPath(t, func(t *testing.T, prepare func(*rig)) {
		r := newRig(t, 0)
		prepare(r)
		r.env.Budget.Limit = 64 << 20
		r.arrive(5000)
		r.reset(&r.client, r.ends.Source)
		r.DrainSource()
		r.MayWrite()
		result := r.turn()
		for !result.Has(SourceFailed) && r.CanRead() {
			result = r.turn()
		}
		if !result.Has(SourceFailed) || result.SourceErr != unix.ECONNRESET {
			t.Fatalf("%+v: %v", result, &r.Pump)
		}
		if !r.CutOff() || !r.Is(EOF) || r.FINDue() {
			t.Errorf("%v", &r.Pump)
		}
		held := 0
		if r.ends.Tap != nil {
			held = r.ends.Tap.Held(r.env)
		}
		r.wait("the bytes", func() bool { r.settle(); r.read(5000); return r.got == 5000-held })
	})
}

// TestSinkThatResetsEndsTheTurn with the errno.
func TestSinkThatResetsEndsTheTurn(t *testing.T) {
	onEveryPath(t, func(t *testing.T, prepare func(*rig)) {
		r := newRig(t, 0)
		prepare(r)
		r.reset(&r.server, r.ends.Sink)
		r.arrive(60_000)
		r.MayRead()
		r.MayWrite()
		result := r.turn()
		if !result.Has(SinkFailed) || result.SinkErr != unix.ECONNRESET && result.SinkErr != unix.EPIPE {
			t.Fatalf("%+v: %v", result, &r.Pump)
		}
		r.SinkGone(r.env)
		if r.Pending != 0 || r.FINDue() || r.CanRead() || !r.Is(FINSent) {
			t.Errorf("%v, %d pending", &r.Pump, r.Pending)
		}
	})
}

// TestResetThatAWriteHasSwallowedIsNoFIN: the socket's error was taken by somebody else, and reads
// say 0.
func TestResetThatAWriteHasSwallowedIsNoFIN(t *testing.T) {
	r := newRig(t, 0)
	r.reset(&r.client, r.ends.Source)
	if err := sock.Error(r.ends.Source); err != unix.ECONNRESET {
		t.Fatal(err)
	}
	r.MayRead()
	r.MayWrite()
	if result := r.turn(); !result.Has(SourceFailed) || result.SourceErr != nil || !r.CutOff() {
		t.Errorf("%+v: %v", result, &r.Pump)
	}
}

// TestReadingPausesBetweenTheWatermarks: it stops at the high one, and goes on at the low one.
func TestReadingPausesBetweenTheWatermarks(t *testing.T) {
	r := newRig(t, 8<<10)
	r.env.NoSplice = true
	r.env.High, r.env.Low = 64<<10, 20_000
	r.fillSink()
	r.cannotWrite()
	stalled := false
	for r.Pending < 64<<10 {
		r.write(1 << 20)
		r.MayRead()
		stalled = stalled || r.turn().Has(StallBegan)
	}
	if !r.Is(Paused) || !stalled || r.CanRead() || r.Pauses != 1 || r.count.Pauses != 1 || int(r.Pending) > 64<<10 {
		t.Fatalf("%v, %d pending, %d pauses", &r.Pump, r.Pending, r.Pauses)
	}
	b := make([]byte, 4096)
	for first := true; r.Is(Paused); first = false {
		_, _, _ = unix.Recvfrom(r.server, b, 0)
		r.cannotRead()
		r.MayWrite()
		if result := r.turn(); result.Has(StallEnded) != first {
			t.Errorf("the stall has ended: %v; first turn: %v", result.Has(StallEnded), first)
		}
		if r.Is(Paused) != (r.Pending > 20_000) {
			t.Fatalf("%v with %d pending", &r.Pump, r.Pending)
		}
	}
}

// TestMemoryLimitStopsReading: nothing is taken that the sink does not take, and the pump waits.
func TestMemoryLimitStopsReading(t *testing.T) {
	r := newRig(t, 8<<10)
	r.env.Budget.Limit = 0
	r.fillSink()
	r.arrive(5000)
	r.MayRead()
	r.MayWrite()
	result := r.turn()
	for !result.Has(WaitsForMemory) {
		result = r.turn()
	}
	if !r.Is(Starved) || !r.Is(Readable) || r.CanRead() || result.Taken != 0 || sock.Unread(r.ends.Source) != 5000 {
		t.Fatalf("%v: %+v, %d bytes in the source", &r.Pump, result, sock.Unread(r.ends.Source))
	}
	r.env.Budget.Limit = 64 << 20
	r.Clear(Starved)
	if result := r.turn(); result.Taken != 5000 || r.Pending != 5000 {
		t.Errorf("%+v, %d pending", result, r.Pending)
	}
}

// TestBulkIsMeteredBeforeMoreIsRead: a turn is broken off when 16 KiB come at once, and goes on.
func TestBulkIsMeteredBeforeMoreIsRead(t *testing.T) {
	r := newRig(t, 0)
	r.arrive(100_000)
	r.MayRead()
	r.MayWrite()
	result := r.Turn(r.env, r.ends, 0)
	if !result.Has(BrokenOff) || result.Taken != smallRead {
		t.Fatalf("%+v", result)
	}
	r.Set(Metered)
	if result = r.Turn(r.env, r.ends, result.Taken); result.Taken != 100_000 || result.Events != 0 {
		t.Errorf("%+v", result)
	}
}

// TestThrottledSinkIsToTellOfRoom: with as much unsent as it may have, the latch is down, and an
// event is asked for.
func TestThrottledSinkIsToTellOfRoom(t *testing.T) {
	r := newRig(t, 1<<20)
	for r.fillSink() > 0 { // until nothing is sent any more
	}
	r.Set(Throttled)
	r.PendingLimit = 4096
	r.arrive(2000)
	r.MayRead()
	r.MayWrite()
	if result := r.turn(); !result.Has(RearmSink) || r.Is(Writable) || result.Taken != 2000 {
		t.Errorf("%+v: %v", result, &r.Pump)
	}
}

// TestMovesAreSmallerInADialogue: a large pipe could take a MiB in one call, and all others would
// wait for that.
func TestMovesAreSmallerInADialogue(t *testing.T) {
	r := newRig(t, 0)
	_ = unix.SetsockoptInt(r.ends.Source, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	r.env.High, r.env.Low = 4<<20, 1<<20
	r.Set(Bulk | Metered | Moderated)
	r.fillSink()
	for _, interactive := range []bool{true, false} {
		r.env.Interactive = interactive
		r.Release(r.env)
		r.sent = 0
		for sock.Unread(r.ends.Source) < 512<<10 {
			if r.write(1<<20) == 0 {
				_, _ = unix.Poll(nil, 1)
			}
		}
		n, ok := r.readSpliced(&turn{Env: r.env, Ends: r.ends}, 1<<20)
		if !ok || n == 0 || (n <= TurnBudget) != interactive {
			t.Errorf("interactive %v: %d bytes", interactive, n)
		}
		want := Lowat
		if interactive {
			want = TurnBudget
		}
		if b := r.budget(&turn{Env: r.env}); b != want {
			t.Errorf("interactive %v: budget %d, want %d", interactive, b, want)
		}
	}
}

// TestLargePipesOfAllLoopsKeepToTheLimit: a large pipe is a good part of a small limit, and two
// loops that have not waited since they last looked at the common account both see it free.
func TestLargePipesOfAllLoopsKeepToTheLimit(t *testing.T) {
	r := newRig(t, 0)
	r.env.Budget.Limit = LargePipeSize * 3 / 2
	other := &Env{
		Pipes: r.env.Pipes, LargePipes: r.env.LargePipes, PipeSize: r.env.PipeSize,
		Budget: Budget{Limit: r.env.Budget.Limit, Common: &r.common}, Count: &r.count,
	}
	d := [2]Pump{New(), New()}
	for i, e := range []*Env{r.env, other} {
		d[i].Set(Moderated)
		if !d[i].borrow(e) {
			t.Fatalf("loop %d has no pipe", i)
		}
	}
	if used := r.env.Budget.Used + other.Budget.Used; used > r.env.Budget.Limit {
		t.Errorf("%d bytes charged, the limit is %d", used, r.env.Budget.Limit)
	}
	if d[0].store != storeLargePipe || d[1].store != storePipe {
		t.Errorf("stores %d and %d, want the first pipe large, and no other", d[0].store, d[1].store)
	}
	for i, e := range []*Env{r.env, other} {
		d[i].Release(e)
		e.Budget.Settle()
	}
}

// TestHandlerDecides: each verdict, and what the pump returns for it.
func TestHandlerDecides(t *testing.T) {
	for _, c := range []struct {
		name      string
		verdict   intercept.Verdict
		bytes     int
		events    Events
		delivered int
		held      int
		check     func(*Pump) bool
	}{
		{"forward", intercept.Forward, 1000, 0, 1000, 0, func(d *Pump) bool { return d.Is(Handled) }},
		{"hold", intercept.Hold, 1000, 0, 0, 1000, func(d *Pump) bool { return d.Is(Handled) && d.Pending == 0 }},
		{"detach", intercept.Detach, 1000, 0, 1000, 0, func(d *Pump) bool { return d.Is(Detached) && !d.Is(Handled) }},
		{"close", intercept.Close, 1000, HandlerClosed, 1000, 0, func(d *Pump) bool { return d.Is(Closing) && d.FINDue() }},
		{"reset", intercept.Reset, 1000, HandlerReset, 0, 0, func(d *Pump) bool { return d.Bytes == 0 }},
		{"no verdict at all", intercept.Verdict(99), 1000, HandlerReset, 0, 0, func(d *Pump) bool { return d.Bytes == 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 0)
			r.handle(intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return c.verdict }))
			r.arrive(c.bytes)
			r.MayRead()
			r.MayWrite()
			result := r.turn()
			if result.Events != c.events || result.Delivered != [2]int{0, c.delivered} || r.ends.Tap.Held(r.env) != c.held || !c.check(&r.Pump) {
				t.Errorf("%+v, %d held: %v", result, r.ends.Tap.Held(r.env), &r.Pump)
			}
		})
	}
}

// TestHandlerMayNotHoldBackForEver, and is told of the last bytes.
func TestHandlerMayNotHoldBackForEver(t *testing.T) {
	r := newRig(t, 0)
	r.handle(intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Hold }))
	for r.sent <= intercept.MaxHold {
		r.arrive(30_000)
		r.MayRead()
		r.MayWrite()
		result := r.turn()
		if over := r.sent > intercept.MaxHold; result.Has(HandlerReset|HeldTooMuch) != over {
			t.Fatalf("%+v after %d bytes", result, r.sent)
		}
	}
}

// TestHandlerSaysLast: what it holds back goes on when its pair is about to be reset.
func TestHandlerSaysLast(t *testing.T) {
	r := newRig(t, 0)
	cut := false
	r.handle(intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
		cut = c.Cut
		return intercept.Hold
	}))
	r.arrive(1000)
	r.MayRead()
	r.MayWrite()
	r.turn()
	if result := r.SayLast(r.env, r.ends); result.Delivered != [2]int{0, 1000} || !cut {
		t.Errorf("%+v, cut %v", result, cut)
	}
	r.wait("the bytes", func() bool { r.read(1000); return r.got == 1000 })
}

// TestPathChangesWhenThePipeIsEmpty: bytes in a pipe go first when urgent data comes.
func TestPathChangesWhenThePipeIsEmpty(t *testing.T) {
	r := newRig(t, 8<<10)
	r.Set(Bulk | Metered)
	filled := r.fillSink()
	r.arrive(10_000)
	r.MayRead()
	r.turn()
	if !r.inPipe() {
		t.Fatalf("%v, store %d", &r.Pump, r.store)
	}
	r.SawUrgent()
	r.arrive(1000)
	r.MayRead()
	if r.turn(); !r.inPipe() || !r.Is(Full) || r.Pending != 10_000 {
		t.Fatalf("%v, store %d", &r.Pump, r.store)
	}
	b := make([]byte, 64<<10)
	for filled > 0 {
		if n, _, err := unix.Recvfrom(r.server, b[:min(filled, len(b))], 0); err == nil {
			filled -= n
		}
	}
	r.wait("the bytes", func() bool { r.settle(); r.read(1 << 20); return r.got == 11_000 })
}

// TestPendingBytesCanBeTakenAlong: for another process, out of a pipe too.
func TestPendingBytesCanBeTakenAlong(t *testing.T) {
	r := newRig(t, 8<<10)
	r.Set(Bulk | Metered)
	r.fillSink()
	r.arrive(10_000)
	r.MayRead()
	r.turn()
	if err := r.EmptyPipe(r.env); err != nil || r.inPipe() {
		t.Fatal(err)
	}
	if got := r.AppendPending(r.env, nil); string(got) != string(r.text[:10_000]) {
		t.Errorf("%d bytes, or others", len(got))
	}
}

// TestTurnsDoNotAllocate on any path.
func TestTurnsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own")
	}
	onEveryPath(t, func(t *testing.T, prepare func(*rig)) {
		r := newRig(t, 0)
		prepare(r)
		b := make([]byte, 64<<10)
		move := func() {
			n, _ := unix.Write(r.client, r.text[:40_000])
			for n > 0 {
				r.MayRead()
				r.MayWrite()
				result := r.Turn(r.env, r.ends, 0)
				if result.Has(BrokenOff) {
					r.Set(Metered)
				}
				r.Clear(Starved)
				held := 0
				if r.ends.Tap != nil {
					held = r.ends.Tap.Held(r.env)
				}
				k, err := unix.Read(r.server, b)
				if err == nil {
					n -= k
				} else if held > 0 && sock.Unread(r.ends.Source) == 0 {
					return
				}
			}
		}
		for range 50 {
			move()
		}
		if n := testing.AllocsPerRun(200, move); n > 0.2 {
			t.Errorf("%v allocations for 40,000 bytes", n)
		}
	})
}

// TestPumpWithoutAPipeGoesThroughChunks: the pool has none left.
func TestPumpWithoutAPipeGoesThroughChunks(t *testing.T) {
	r := newRig(t, 8<<10)
	var lent []splice.ID
	for {
		id, ok := r.env.Pipes.Get()
		if !ok {
			break
		}
		lent = append(lent, id)
	}
	r.Set(Bulk | Metered)
	r.fillSink()
	r.arrive(5000)
	r.MayRead()
	if r.turn(); r.store != storeQueue || r.Pending != 5000 {
		t.Errorf("store %d, %d pending", r.store, r.Pending)
	}
	for _, id := range lent {
		r.env.Pipes.Put(id)
	}
}
