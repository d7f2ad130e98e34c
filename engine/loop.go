package engine

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

const (
	maxLoops  = 256
	batchSize = 1024 // events per wait
)

// loop is one event loop. Its poller, listeners, pairs, pipes and chunks are its own. Other
// goroutines talk to it through the mailbox, and read what it publishes.
type loop struct {
	engine *Engine
	index  int
	poller *epoll.Poller

	listeners  []listener
	pairs      table
	env        pump.Env     // what pumps borrow
	sideTable  []*pairExtra // by slot: what needs pointers, for the pairs that have it
	freeExtras []*pairExtra
	wheel      wheel

	ready, serving []reference // pairs with something to do
	memWaiters     []reference // pairs of which a direction is starved
	throttledFlows []throttledFlow
	moderations    []moderation
	meteredFlows   []meteredFlow
	lastTurnaround uint32 // the last tick in which a pair turned from one direction to the other
	tcp            unix.TCPInfo
	sink, source   unix.TCPInfo // samples for flow control
	opened         uint64       // pairs so far, for their ids
	fdWaiters      int          // pairs that wait for a descriptor
	overloaded     bool         // this wake-up brought many events
	mayHoldP       bool         // Go has more processors than there are loops
	seen           uint64       // events as of the beginning of this tick
	mostBuffer     int64        // see mostReceiveBuffer; 0: not known yet
	round          sampling
	tuned          int64 // see mostTuned; 0: not known yet
	self           self

	start time.Time
	now   time.Time // of this wake-up
	tick  uint32    // of this wake-up

	count    counters
	draining bool
	holding  bool // a hand-over is under way: no connection is accepted
	aborted  bool
	gone     bool      // calls no callback any more: one may have ended the goroutine
	over     bool      // its last pairs are being reset: it dials no more
	deadline time.Time // of draining

	mailbox mailbox

	goroutine atomic.Uint64 // that runs the loop
	calls     uint64        // of callbacks, so far
	calling   atomic.Uint64 // the callback that it is in: a callMark
	callFor   atomic.Uint64 // the id of its pair

	mu         sync.Mutex
	published  counters
	dialErrors [errnos]uint64
}

func newLoop(e *Engine, index int) (*loop, error) {
	p, err := epoll.New(batchSize)
	if err != nil {
		return nil, err
	}
	o := &e.options
	pipes := o.Pipes / o.Loops
	if index < o.Pipes%o.Loops {
		pipes++
	}
	limits := splice.Limits{Size: o.PipeSize, Least: min(o.PipeSize, DefaultPipeSize), Pipes: pipes, Keep: keepPipes, Descriptors: e.descriptors}
	large := limits
	large.Size = max(o.PipeSize, min(pump.LargePipeSize, o.HighWatermark))
	large.Least, large.Pipes, large.Keep = large.Size, min(maxLargePipes, pipes), keepLargePipes
	l := &loop{
		engine: e,
		index:  index,
		poller: p,
		start:  e.start,
	}
	l.env = pump.Env{
		Pipes:      splice.NewPool(limits),
		LargePipes: splice.NewPool(large),
		PipeSize:   o.PipeSize,
		Budget:     pump.Budget{Limit: o.MemoryLimit, Common: &e.memory},
		Count:      &l.count.Counters,
		High:       o.HighWatermark,
		Low:        o.LowWatermark,
		NoSplice:   o.NoSplice || o.NoFlowControl, // a pipe does not grow
		Unbounded:  o.NoFlowControl,
	}
	l.env.Init()
	l.mailbox.wake = p.Wake
	return l, nil
}

// keepPipes is how many empty pipes a loop keeps open: enough that busy pairs need not open new
// ones, few enough that descriptors come back when the load is over.
const keepPipes = 64

// run runs the loop until it was told to end and no pair is left.
func (l *loop) run() error {
	defer l.cleanUp()
	err := l.work()
	l.endEverything()
	return err
}

func (l *loop) work() error {
	l.goroutine.Store(goroutine())
	if init := l.engine.options.ThreadInit; init != nil {
		runtime.LockOSThread() // never unlocked: the thread, changed by init, ends with the goroutine
		if err := init(); err != nil {
			return err
		}
	}
	// Otherwise the other goroutines would have no processor.
	l.mayHoldP = runtime.GOMAXPROCS(0) > l.engine.options.Loops
	l.clock()
	l.askLocals() // while there are descriptors
	for i := range l.listeners {
		if err := l.poller.Add(l.listeners[i].fd, listenerToken(i)); err != nil {
			return err
		}
	}
	for !l.finished() {
		l.publish()
		events, err := l.poller.Wait(l.timeout())
		if err != nil {
			return err
		}
		l.clock()
		l.count.waits++
		l.count.events += uint64(len(events))
		l.overloaded = len(events) >= overloadEvents
		if l.tick != l.wheel.tick {
			l.throttle() // while sinks have what they were left with
			l.measure()
		}
		for _, ev := range events {
			l.dispatch(ev)
		}
		// Pairs are served before new connections are accepted: a pair that ends frees its
		// port, and the next connection may come from the same.
		l.serve()
		l.moderate()
		l.accept()
		if l.tick != l.wheel.tick {
			l.onTick()
		}
	}
	return nil
}

// busyEventsPerTick is how many events per tick make a loop busy: its waits hold on to their
// processor. With fewer events, signals at every tenth millisecond cost more than being parked.
const busyEventsPerTick = 200

// clock reads the time, once per wake-up.
func (l *loop) clock() {
	l.now = time.Now()
	if tick := uint32(l.now.Sub(l.start) / tickLength); tick != l.tick {
		l.poller.HoldP = l.mayHoldP && l.count.events-l.seen >= busyEventsPerTick*uint64(tick-l.tick)
		l.tick, l.seen = tick, l.count.events
	}
	l.env.Budget.Look()
}

// onTick does what is due by time, once per tick.
func (l *loop) onTick() {
	l.wheel.expire(&l.pairs, l.tick, l.expired)
	l.retryStarved()
	l.resumeListeners()
	l.sample()
	l.endLate()
}

// timeout is how long the poller may wait, in milliseconds: not at all while something is ready,
// otherwise until the next tick at which something is due.
func (l *loop) timeout() int {
	if len(l.ready) > 0 {
		return 0
	}
	n := l.wheel.wait()
	if len(l.memWaiters) > 0 || len(l.throttledFlows) > 0 || len(l.meteredFlows) > 0 || l.listenerReady() {
		n = 1
	}
	if k := l.untilSample(); k > 0 && (n < 0 || k < n) {
		n = k
	}
	until := l.start.Add(time.Duration(l.wheel.tick+uint32(n)) * tickLength)
	switch {
	case l.mayAccept():
		return 0
	case len(l.moderations) > 0:
		return int(coalesceTimeout / time.Millisecond)
	case n < 0 && !l.draining:
		return -1
	case n < 0 || l.draining && l.deadline.Before(until):
		until = l.deadline
	}
	wait := min(time.Until(until), math.MaxInt32*time.Millisecond/2) // the kernel takes 31 bits
	return int(max(wait, 0)/time.Millisecond) + 1
}

// dispatch notes one event. Nothing is moved yet, so that several events of a pair are served
// together.
func (l *loop) dispatch(ev epoll.Event) {
	if ev.Wake() {
		l.mailbox.empty(l)
		return
	}
	t := ev.Token()
	if i, ok := tokenListener(t); ok {
		if i < len(l.listeners) {
			l.listeners[i].ready = true
		}
		return
	}
	slot, s := t.Key>>1, side(t.Key&1)
	p := l.find(reference{slot, t.Generation})
	if p == nil {
		l.count.staleEvents++
		return
	}
	if p.state == stateHandingOff {
		return // restart asks for everything again
	}
	if ev.Broken() {
		p.dir[s].SawFailure()
	}
	from, to := &p.dir[s], &p.dir[s.other()]
	if ev.Readable() {
		from.MayRead()
	}
	if ev.Writable() {
		to.MayWrite()
	}
	if ev.Ending() {
		from.WillEnd()
	}
	if ev.FIN() {
		from.SawFIN()
	}
	if ev.Urgent() {
		from.SawUrgent()
	}
	if p.state == stateConnecting && s == outgoing {
		l.connected(p, ev)
		return
	}
	l.queue(p)
}

// serve gives every pair on the ready list one turn in each direction. Pairs that could go on are
// on the list again.
func (l *loop) serve() {
	l.serving, l.ready = l.ready, l.serving[:0]
	for _, r := range l.serving {
		if p := l.find(r); p != nil {
			p.queued = false
			switch {
			case p.state == stateOpen:
				l.service(p)
			case p.state == stateHandingOff || !p.dir[incoming].Is(pump.Broken):
			case p.state == stateConnecting && (p.dir[upstream].Pending > 0 || sock.Unread(int(p.fd[incoming])) > 0):
				// The client was gone before the server was there, but has sent something. The
				// server gets that, and the RST behind it.
			default:
				l.end(p, ReasonReset, sock.Error(int(p.fd[incoming])))
			}
		}
	}
}
