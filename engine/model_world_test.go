package engine

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

// modelWorld is a loop that does not run: the test calls what the loop would call, in an
// order of its own, between real sockets.
type modelWorld struct {
	engine *Engine
	*loop
	front, back *modelListener // of clients and of servers
	nobody      netip.AddrPort // an address at which nobody listens
	closedPort  int            // its socket
	sendBuffer  int            // SO_SNDBUF of the relay's sockets
	buffer      []byte         // to read into

	gentle bool // nobody breaks off

	pairs      []*modelPair
	events     []epoll.Event // that the kernel told of and the loop has not been shown
	taken      []splice.ID   // pipes that somebody else uses
	handingOff []modelFrozen // pairs on their way to another engine
	opening    *modelPair    // its interceptor is being asked
	moved      time.Time     // in real time, when the loop's clock was moved last
}

// modelPair is a pair as the model sees it.
type modelPair struct {
	id       uint64
	ref      reference
	end      [2]*modelEnd // the server's is nil if there is none
	how      [2]*behaviour
	handlers [2]*counted
	prefix   int
	since    uint32 // tick
	ended    uint32 // tick
	refused  bool   // nobody listens at its destination
	opened   bool
	over     bool
	reason   Reason
}

func newModelWorld(o Options, receive, sendBuffer int) (w *modelWorld, err error) {
	w = &modelWorld{sendBuffer: sendBuffer, buffer: make([]byte, 64<<10), closedPort: -1}
	o.Loops, o.Interceptor, o.Observer = 1, w, Observer{PairOpened: w.pairOpened, PairEnded: w.pairEnded}
	if w.engine, err = New(o); err != nil {
		return nil, err
	}
	w.loop = w.engine.loops[0]
	w.clock()
	w.moved = time.Now()
	if w.front, err = listenForModel(receive); err == nil {
		w.back, err = listenForModel(receive)
	}
	if err == nil {
		w.closedPort, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		err = unix.Bind(w.closedPort, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		w.close()
		return nil, err
	}
	at, _ := unix.Getsockname(w.closedPort)
	w.nobody = modelAddr(at.(*unix.SockaddrInet4))
	return w, nil
}

func modelAddr(a *unix.SockaddrInet4) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
}

// close gives back all that the world has, also when its test has failed.
func (w *modelWorld) close() {
	for _, id := range w.taken {
		w.env.Pipes.Put(id)
	}
	w.taken = nil
	w.engine.Close()
	for _, p := range w.pairs {
		for _, e := range p.end {
			if e != nil && e.fd >= 0 {
				sock.CloseWithRST(e.fd)
			}
		}
	}
	for _, ln := range []*modelListener{w.front, w.back} {
		if ln != nil {
			unix.Close(ln.fd)
		}
	}
	if w.closedPort >= 0 {
		unix.Close(w.closedPort)
	}
}

// open begins a pair, with a client and a server at its ends.
func (w *modelWorld) open(how [2]*behaviour, prefix int, refused bool, send int) error {
	near, far, err := w.front.connect(send, 0)
	if err != nil {
		return fmt.Errorf("connect to the front: %w", err)
	}
	p := &modelPair{how: how, refused: refused, prefix: prefix, since: w.tick}
	p.end[incoming] = &modelEnd{fd: near}
	w.pairs = append(w.pairs, p)
	destination := modelAddr(&w.back.addr)
	if refused {
		destination = w.nobody
	}
	p.end[incoming].sent = append(p.end[incoming].sent, text[:prefix]...)
	conn := os.NewFile(uintptr(far), "accepted")
	limit := w.engine.options.MemoryLimit
	w.engine.options.MemoryLimit = math.MaxInt64 // a prefix for which there is no room would be refused
	err = w.engine.Adopt(conn, Adoption{Destination: destination, Prefix: text[:prefix]})
	w.engine.options.MemoryLimit = limit
	conn.Close()
	if err != nil {
		return err
	}
	w.opening = p
	w.mailbox.empty(w.loop)
	w.opening = nil
	if live := w.find(p.ref); live != nil {
		modelBuffers(int(live.fd[incoming]), w.sendBuffer, 0)
		modelBuffers(int(live.fd[outgoing]), w.sendBuffer, 0)
	}
	if refused {
		return nil
	}
	server, err := w.back.accept()
	if err != nil {
		return fmt.Errorf("accept from the relay: %w", err)
	}
	modelBuffers(server, send, 0)
	p.end[outgoing] = &modelEnd{fd: server}
	return nil
}

// Open is the loop asking what to do with a pair.
func (w *modelWorld) Open(pair intercept.Pair) (d intercept.Decision) {
	p := w.opening
	p.id = pair.ID
	for slot := range w.loop.pairs.size() {
		if live := w.loop.pairs.at(slot); live.state != stateFree && live.id == pair.ID {
			p.ref = live.ref()
		}
	}
	for s := range side(2) {
		if p.how[s].handle != nil {
			p.handlers[s] = &counted{Handler: p.how[s].handle()}
		}
	}
	if p.handlers[upstream] != nil {
		d.Upstream = p.handlers[upstream]
	}
	if p.handlers[downstream] != nil {
		d.Downstream = p.handlers[downstream]
	}
	return d
}

// refuseSplice makes the relay's socket in front of end s one into which splice(2) does not
// write: that is what it does with sockets that append.
func (w *modelWorld) refuseSplice(p *modelPair, s side) {
	if live := w.find(p.ref); live != nil && live.fd[s] >= 0 {
		_, _ = unix.FcntlInt(uintptr(live.fd[s]), unix.F_SETFL, unix.O_NONBLOCK|unix.O_APPEND)
	}
}

// pairOpened is the loop telling of a pair.
func (w *modelWorld) pairOpened(i PairInfo) { w.named(i.ID).opened = true }

// pairEnded is the loop telling of its end.
func (w *modelWorld) pairEnded(i PairInfo) {
	if i.Reason == ReasonHandedOver {
		return
	}
	p := w.named(i.ID)
	if p.over {
		panic(fmt.Sprintf("pair %d ended twice", i.ID))
	}
	p.over, p.reason, p.ended = true, i.Reason, w.tick
	if p.timedOut() && w.tick-p.since < ticks(modelTimeout) {
		panic(fmt.Sprintf("pair %d timed out after %d ticks", i.ID, w.tick-p.since))
	}
}

func (w *modelWorld) named(id uint64) *modelPair {
	for _, p := range w.pairs {
		if p.id == id {
			return p
		}
	}
	panic(fmt.Sprintf("the loop speaks of pair %d, which never was", id))
}

// poll asks the kernel for events, and keeps them.
func (w *modelWorld) poll(milliseconds int) (int, error) {
	events, err := w.poller.Wait(milliseconds)
	w.events = append(w.events, events...)
	return len(events), err
}

// show gives the loop the event at i.
func (w *modelWorld) showEvent(i int) {
	ev := w.events[i]
	w.events = append(w.events[:i], w.events[i+1:]...)
	w.dispatch(ev)
}

// tell gives the loop all events.
func (w *modelWorld) tell() {
	for len(w.events) > 0 {
		w.showEvent(0)
	}
}

// pass moves the loop's clock by some ticks, and does what is due.
func (w *modelWorld) pass(n uint32) {
	w.moved = time.Now()
	w.tick += n
	w.now = w.now.Add(time.Duration(n) * tickLength)
	w.onTick()
}

// prove moderates a direction of every pair that may be.
func (w *modelWorld) prove(s side) {
	for _, m := range w.pairs {
		if p := w.find(m.ref); p != nil && p.state == stateOpen && !p.dir[s].Is(pump.Moderated|pump.Throttled|pump.EOF) {
			w.beginModeration(p, s)
		}
	}
}

// read lets an end read up to n bytes, and checks them.
func (w *modelWorld) read(p *modelPair, s side, n int) (news bool, err error) {
	e := p.end[s]
	before := len(e.got)
	if news, err = e.read(n, w.buffer); err != nil {
		return news, err
	}
	return news, p.check(s, before)
}

// quietFor is how long, in real time, nothing may happen while something should. The
// kernel's own timers (a closed window is probed, a segment that found no memory is sent
// again) can take seconds.
const quietFor = 15 * time.Second

// settle lets both ends of all pairs finish, and reads all there is, until all pairs are
// over and have told both ends.
func (w *modelWorld) settle() error {
	for len(w.handingOff) > 0 {
		if err := w.arrive(0); err != nil {
			return err
		}
	}
	for _, p := range w.pairs {
		for _, e := range p.end {
			if e != nil {
				e.finish()
			}
		}
	}
	for quiet := time.Now(); ; {
		left, news := 0, false
		for _, p := range w.pairs {
			if !p.over {
				left++
			}
			for s, e := range p.end {
				if e == nil || e.done() {
					continue
				}
				n, err := w.read(p, side(s), 1<<20)
				if err != nil {
					return err
				}
				news = news || n
				if !e.done() && !(e.shutRead && p.over) {
					left++
				}
			}
		}
		if left == 0 {
			return nil
		}
		wait := 1
		if news || len(w.ready) > 0 {
			wait = 0
		}
		n, err := w.poll(wait)
		if err != nil {
			return err
		}
		if n > 0 || news || len(w.events) > 0 {
			quiet = time.Now()
		}
		w.tell()
		w.serve()
		w.moderate()
		if time.Since(w.moved) >= tickLength {
			w.pass(1)
		}
		if err := w.check(); err != nil {
			return err
		}
		if time.Since(quiet) > quietFor {
			return fmt.Errorf("nothing happens any more, %d are left", left)
		}
	}
}

// String describes the world when something has failed.
func (w *modelWorld) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pending %d, memory %d of %d, ready %d, waiting for memory %d, watches %d, tick %d\n",
		w.count.Pending, w.env.Budget.Used, w.env.Budget.Limit, len(w.ready), len(w.memWaiters), len(w.throttledFlows), w.tick)
	for _, ev := range w.events {
		fmt.Fprintf(&b, "  event not shown: %+v\n", ev)
	}
	for i, p := range w.pairs {
		fmt.Fprintf(&b, "pair %d (id %d): opened %v over %v (%v) prefix %d refused %v\n", i, p.id, p.opened, p.over, p.reason, p.prefix, p.refused)
		fmt.Fprintf(&b, "  client: %v\n  server: %v\n", p.end[incoming], p.end[outgoing])
		live := w.find(p.ref)
		for s := range side(2) {
			fmt.Fprintf(&b, "  direction %d, %s", s, p.how[s].name)
			if live != nil {
				d := &live.dir[s]
				fmt.Fprintf(&b, ": pending %d, limit %d, %v, in the source's socket %d", d.Pending, d.PendingLimit, d, sock.Unread(int(live.fd[s])))
			}
			b.WriteString("\n")
		}
		if live != nil {
			fmt.Fprintf(&b, "  state %d queued %v\n", live.state, live.queued)
		}
	}
	return b.String()
}
