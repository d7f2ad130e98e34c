package engine

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// The protocol alone, between an old and a new process that chance delays, cuts off from each other
// and kills. Their pairs are sockets whose other ends tell when nobody has them any more.

// owner is what the old process may do with a pair.
type owner int

const (
	serving    owner = iota
	frozen           // offered
	committing       // the commit may have been sent
	gone
)

// protocolWorld is the two processes and the pairs.
type protocolWorld struct {
	mu      sync.Mutex
	old     []owner
	new     []bool // it serves the pair
	fds     []int  // the old one's; -1: closed
	newFDs  []int
	dead    [2]bool // old, new
	ends    [2]int  // of the link: the old one's and the new one's
	invalid error
}

func (w *protocolWorld) bad(format string, args ...any) {
	if w.invalid == nil {
		w.invalid = fmt.Errorf(format, args...)
	}
}

// kill ends a process: it serves nothing, and its descriptors and its end of the link are closed.
func (w *protocolWorld) kill(who int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead[who] {
		return
	}
	w.dead[who] = true
	unix.Shutdown(w.ends[who], unix.SHUT_RDWR)
	for i, fd := range [2][]int{w.fds, w.newFDs}[who] {
		if fd >= 0 {
			unix.Close(fd)
			[2][]int{w.fds, w.newFDs}[who][i] = -1
		}
	}
}

// give is the old process: it offers the pairs, some at a time.
func (w *protocolWorld) give(batchSize int) error {
	k := link{w.ends[0]}
	if _, err := k.expect(frameReady); err != nil {
		return err
	}
	for first := 0; first < len(w.old); first += batchSize {
		last := min(first+batchSize, len(w.old))
		var batch []parcel
		w.mu.Lock()
		for i := first; i < last && !w.dead[0]; i++ {
			w.old[i] = frozen
			fd, _ := unix.FcntlInt(uintptr(w.fds[i]), unix.F_DUPFD_CLOEXEC, 0) // kill may close the other
			state := pairState{ID: uint64(i), Client: netip.MustParseAddrPort("192.0.2.1:1"), State: stateNames[stateWaiting]}
			batch = append(batch, parcel{wire: state, fds: []int{fd}})
		}
		w.mu.Unlock()
		err := k.offer(batch)
		for _, c := range batch {
			unix.Close(c.fds[0])
		}
		w.mu.Lock()
		if w.dead[0] {
			w.mu.Unlock()
			return errLink
		}
		for i := first; err == nil && i < last; i++ {
			w.old[i] = committing
		}
		w.mu.Unlock()
		if err == nil {
			err = k.sendOnce(frameCommit)
		}
		w.mu.Lock()
		for i := first; i < last && !w.dead[0]; i++ {
			if err == nil {
				w.old[i] = gone
				unix.Close(w.fds[i])
				w.fds[i] = -1
				continue
			}
			w.old[i] = serving
			if w.new[i] {
				w.bad("pair %d is thawed, and the new process serves it", i)
			}
		}
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return k.sendOnce(frameDone)
}

// start is the new process: it serves a pair.
func (w *protocolWorld) start(s pairState, fds []int, _ []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := int(s.ID)
	switch {
	case w.dead[1]:
		unix.Close(fds[0])
		return true
	case w.new[i]:
		w.bad("pair %d came twice", i)
	case !w.dead[0] && w.old[i] < committing:
		w.bad("the new process serves pair %d, which was not committed", i)
	}
	w.new[i], w.newFDs[i] = true, fds[0]
	return true
}

// protocolEvent is what happens to a frame on the link.
type protocolEvent int

const (
	carried protocolEvent = iota
	cutBefore
	cutInside
	cutAfter
	oldDies
	newDies
	waits // for a frame the other way, or for some time
)

// carry carries frames one way, until something happens to one.
func (w *protocolWorld) carry(from, to int, events []protocolEvent, other <-chan struct{}, mine chan<- struct{}) {
	defer close(mine)
	cut := func() {
		unix.Shutdown(from, unix.SHUT_RDWR)
		unix.Shutdown(to, unix.SHUT_RDWR)
	}
	defer cut()
	for i := 0; ; i++ {
		f, err := link{from}.receive()
		if err != nil {
			return
		}
		event := carried
		if i < len(events) {
			event = events[i]
		}
		b, err := encode(f.kind, json.RawMessage(f.head))
		if err != nil {
			return
		}
		var rights []byte
		if len(f.fds) > 0 {
			rights = unix.UnixRights(f.fds...)
		}
		switch event {
		case waits:
			select {
			case <-other:
			case <-time.After(3 * time.Millisecond): // nothing will come before this is carried
			}
		case oldDies:
			w.kill(0)
		case newDies:
			w.kill(1)
		case cutBefore:
			b = nil
		case cutInside:
			b = b[:len(b)/2]
		}
		err = link{to}.write(b, rights)
		f.close()
		if err != nil || event >= cutBefore && event <= cutAfter {
			return
		}
		select {
		case mine <- struct{}{}:
		default:
		}
	}
}

// TestProtocolLeavesOneOwner: whatever is lost, late or dead, each pair has one owner, or nobody has
// it any more, and at no time both processes serve it.
func TestProtocolLeavesOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.IntRange(1, 7).Draw(t, "pairs")
		batch := rapid.IntRange(1, 4).Draw(t, "batch")
		var events [2][]protocolEvent
		for way, most := range []int{24, 8} {
			events[way] = make([]protocolEvent, most)
			for range rapid.IntRange(0, 2).Draw(t, "events") {
				at := rapid.IntRange(0, most-1).Draw(t, "frame")
				events[way][at] = protocolEvent(rapid.IntRange(int(cutBefore), int(waits)).Draw(t, "event"))
			}
		}
		w := &protocolWorld{old: make([]owner, pairs), new: make([]bool, pairs)}
		var all, peers []int
		pairOf := func() (int, int) {
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return ends[0], ends[1]
		}
		for range pairs {
			fd, peer := pairOf()
			w.fds, w.newFDs = append(w.fds, fd), append(w.newFDs, -1)
			peers = append(peers, peer)
		}
		var inside [2]int
		w.ends[0], inside[0] = pairOf()
		w.ends[1], inside[1] = pairOf()
		all = append(append(all, w.ends[:]...), inside[:]...)

		var wg sync.WaitGroup
		told := [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
		wg.Go(func() { w.carry(inside[0], inside[1], events[0], told[1], told[0]) })
		wg.Go(func() { w.carry(inside[1], inside[0], events[1], told[0], told[1]) })
		wg.Go(func() {
			_ = w.give(batch)
			unix.Shutdown(w.ends[0], unix.SHUT_RDWR)
		})
		wg.Go(func() {
			taker := taking{link: link{w.ends[1]}, start: w.start}
			_ = taker.run()
			unix.Shutdown(w.ends[1], unix.SHUT_RDWR)
		})
		wg.Wait()
		for _, fd := range all {
			unix.Close(fd) // and what nobody has read in them
		}
		if w.invalid != nil {
			t.Error(w.invalid)
		}
		for i, peer := range peers {
			owners := 0
			if !w.dead[0] && w.old[i] != gone {
				owners++
			}
			if !w.dead[1] && w.new[i] {
				owners++
			}
			n, _, err := unix.Recvfrom(peer, make([]byte, 1), unix.MSG_DONTWAIT)
			if closed := n == 0 && err == nil; owners > 1 || closed != (owners == 0) {
				t.Errorf("pair %d has %d owners; closed: %v", i, owners, closed)
			}
			unix.Close(peer)
			for _, fd := range []int{w.fds[i], w.newFDs[i]} {
				if fd >= 0 {
					unix.Close(fd)
				}
			}
		}
	})
}
