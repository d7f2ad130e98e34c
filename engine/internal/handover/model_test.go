package handover_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
)

// The protocol between an old and a new process that are delayed, cut off from each other and
// killed. Their pairs are sockets whose other ends tell when no process has them any more.

// owner is what the old process may do with a pair.
type owner int

const (
	serving    owner = iota
	frozen           // offered
	committing       // the commit may have been sent
	released
)

// event is what happens to a frame on the link.
type event int

const (
	carried event = iota
	cutBefore
	cutInside
	cutAfter
	oldDies
	newDies
	late // until a frame has gone the other way, or for some time
	events
)

func (e event) String() string {
	return [...]string{"carried", "cut before", "cut inside", "cut after", "old dies", "new dies", "late"}[e]
}

// schedule is what happens to the frames of each way, in their order.
type schedule [2][]event

// world is the two processes and the pairs.
type world struct {
	batch int // pairs that are offered together

	mu     sync.Mutex
	old    []owner
	new    []bool // it serves the pair
	fds    []int  // the old one's; -1: closed
	newFDs []int
	peers  []int   // the other ends of the pairs
	dead   [2]bool // old, new
	acked  int     // batches whose acknowledgement was carried to the old process
	middle *handovertest.Middle
	faults []error
}

func (w *world) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Errorf(format, args...))
}

func newWorld(pairs, batch int) (*world, error) {
	w := &world{batch: batch, old: make([]owner, pairs), new: make([]bool, pairs)}
	for range pairs {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		w.fds, w.newFDs, w.peers = append(w.fds, ends[0]), append(w.newFDs, -1), append(w.peers, ends[1])
	}
	return w, nil
}

// play lets the processes hand over while things happen, and says what was wrong in the end.
func (w *world) play(s schedule) (err error) {
	crossed := [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
	middle, err := handovertest.NewMiddle(func(way handovertest.Way, number int, f *handovertest.Frame) int {
		defer func() {
			select {
			case crossed[way] <- struct{}{}:
			default:
			}
		}()
		what := carried
		if number < len(s[way]) {
			what = s[way][number]
		}
		if f.Kind == handover.KindAck && what != cutBefore && what != cutInside {
			w.mu.Lock()
			w.acked++
			w.mu.Unlock()
		}
		switch what {
		case cutBefore:
			return 0
		case cutInside:
			return len(f.Bytes) / 2
		case cutAfter:
			return len(f.Bytes)
		case oldDies:
			w.kill(0)
		case newDies:
			w.kill(1)
		case late:
			select {
			case <-crossed[1-way]:
			case <-time.After(3 * time.Millisecond): // nothing will come before this is carried
			}
		}
		return handovertest.Whole
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.middle = middle // kill reads it on the middle's goroutines
	w.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		w.giving(w.give())
		handovertest.Shutdown(w.middle.Old, unix.SHUT_RDWR)
	})
	wg.Go(func() {
		w.taking(w.take())
		handovertest.Shutdown(w.middle.New, unix.SHUT_RDWR)
	})
	wg.Wait()
	w.middle.Close() // and what nobody has read in it
	w.middle.New.Close()
	return w.judge()
}

// kill ends a process: it serves nothing, and its descriptors and its end of the link are closed.
func (w *world) kill(who int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead[who] {
		return
	}
	w.dead[who] = true
	fds, conn := w.fds, w.middle.Old
	if who == 1 {
		fds, conn = w.newFDs, w.middle.New
	}
	handovertest.Shutdown(conn, unix.SHUT_RDWR)
	for i := range fds {
		closeOnce(&fds[i])
	}
}

func closeOnce(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

// give is the old process: it offers the pairs, some at a time.
func (w *world) give() error {
	link, err := handover.NewLink(w.middle.Old)
	if err != nil {
		return err
	}
	s := handover.NewSender(link)
	if err := s.Greet(0, len(w.old), nil); err != nil {
		return err
	}
	if _, err := s.AwaitReady(); err != nil {
		return err
	}
	for first := 0; first < len(w.old); first += w.batch {
		last := min(first+w.batch, len(w.old))
		err := w.offer(s, first, last)
		if err == nil {
			err = s.Commit()
		}
		w.commitEnds(first, last, err)
		if err != nil {
			return err
		}
	}
	return s.Done()
}

// offer freezes pairs and offers them. The engine may commit them then.
func (w *world) offer(s *handover.Sender, first, last int) error {
	var batch []handover.Pair
	w.mu.Lock()
	for i := first; i < last && !w.dead[0]; i++ {
		w.old[i] = frozen
		fd, err := unix.FcntlInt(uintptr(w.fds[i]), unix.F_DUPFD_CLOEXEC, 0) // kill may close the other
		if err != nil {
			w.fault("duplicate pair %d: %v", i, err)
		}
		record := handover.Record{ID: uint64(i), Client: netip.MustParseAddrPort("192.0.2.1:1"), State: handover.Waiting}
		batch = append(batch, handover.Pair{Record: record, FDs: []int{fd}})
	}
	w.mu.Unlock()
	err := s.Offer(batch)
	for i := range batch {
		batch[i].Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead[0] {
		return handover.ErrPeerGone
	}
	for i := first; err == nil && i < last; i++ {
		w.old[i] = committing
	}
	return err
}

// commitEnds releases pairs after a commit, and resumes them after an error.
func (w *world) commitEnds(first, last int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := first; i < last && !w.dead[0]; i++ {
		if err == nil {
			w.old[i] = released
			closeOnce(&w.fds[i])
			if i/w.batch >= w.acked {
				w.fault("pair %d is released, and the new process has not said that it holds it", i)
			}
			continue
		}
		w.old[i] = serving
		if w.new[i] {
			w.fault("pair %d is resumed, and the new process serves it", i)
		}
	}
}

// giving checks how the old process's side has ended.
func (w *world) giving(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, o := range w.old {
		if err == nil && o != released && !w.dead[0] {
			w.fault("all is done, and pair %d is not released", i)
		}
		if o == frozen && !w.dead[0] {
			w.fault("pair %d stays frozen", i)
		}
	}
}

// take is the new process: it serves what is committed.
func (w *world) take() error {
	link, err := handover.NewLink(w.middle.New)
	if err != nil {
		return err
	}
	r := handover.NewReceiver(link)
	if _, _, err := r.Greet(); err != nil {
		return err
	}
	if err := r.Ready(len(w.old)); err != nil {
		return err
	}
	for {
		pairs, err := r.Next()
		if err != nil {
			return err
		}
		for _, p := range pairs {
			w.start(p)
		}
	}
}

func (w *world) start(p handover.Pair) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := int(p.ID)
	switch {
	case w.dead[1]:
		p.Close()
		return
	case w.new[i]:
		w.fault("pair %d came twice", i)
	case !w.dead[0] && w.old[i] < committing:
		w.fault("the new process serves pair %d, which was not committed", i)
	}
	w.new[i], w.newFDs[i] = true, p.FDs[0]
}

// taking checks how the new process's side has ended. With io.EOF it accepts: then the old process
// must have given everything away. With ErrPeerGone it accepts as well, but a live old process
// closes the link only after it has ended the new one, and here nothing does.
func (w *world) taking(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != io.EOF || w.dead[0] || w.dead[1] {
		return
	}
	for i, o := range w.old {
		if o < committing || !w.new[i] {
			w.fault("all is done, and pair %d is still the old process's", i)
		}
	}
}

// judge looks at the pairs when both processes have come to their ends: each has one owner, or is
// closed.
func (w *world) judge() error {
	for i, peer := range w.peers {
		owners := 0
		if !w.dead[0] && w.old[i] != released {
			owners++
		}
		if !w.dead[1] && w.new[i] {
			owners++
		}
		n, _, err := unix.Recvfrom(peer, make([]byte, 1), unix.MSG_DONTWAIT)
		if closed := n == 0 && err == nil; owners > 1 || closed != (owners == 0) {
			w.fault("pair %d has %d owners; closed: %v", i, owners, closed)
		}
		unix.Close(peer)
		closeOnce(&w.fds[i])
		closeOnce(&w.newFDs[i])
	}
	return errors.Join(w.faults...)
}

// TestEveryScheduleLeavesOneOwner plays every schedule in which up to two things happen, to any
// frames: each pair has one owner, or nobody has it any more, and at no time both processes serve
// it.
func TestEveryScheduleLeavesOneOwner(t *testing.T) {
	const pairs, batch = 3, 2
	w, err := newWorld(pairs, batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.play(schedule{}); err != nil {
		t.Fatal(err)
	}
	down, up := len(w.middle.Seen(handovertest.Down)), len(w.middle.Seen(handovertest.Up))
	// One schedule is a row of events, those of the frames down and behind them those of the
	// frames up.
	row, played := make([]event, down+up), 0
	play := func() {
		w, err := newWorld(pairs, batch)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.play(schedule{row[:down], row[down:]}); err != nil {
			t.Errorf("%v, %v:\n%v", row[:down], row[down:], err)
		}
		played++
	}
	for i := range row {
		for row[i] = carried + 1; row[i] < events; row[i]++ {
			play()
			for j := i + 1; j < len(row); j++ {
				for row[j] = carried + 1; row[j] < events; row[j]++ {
					play()
				}
				row[j] = carried
			}
		}
		row[i] = carried
	}
	t.Logf("%d frames down, %d up, %d schedules", down, up, played)
}

// TestRandomScheduleLeavesOneOwner: as above, with up to four things, and more pairs.
func TestRandomScheduleLeavesOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.IntRange(1, 7).Draw(t, "pairs")
		batch := rapid.IntRange(1, 4).Draw(t, "batch")
		var s schedule
		for way, most := range []int{24, 8} {
			s[way] = make([]event, most)
			for range rapid.IntRange(0, 2).Draw(t, "events") {
				at := rapid.IntRange(0, most-1).Draw(t, "frame")
				s[way][at] = event(rapid.IntRange(int(carried)+1, int(events)-1).Draw(t, "event"))
			}
		}
		w, err := newWorld(pairs, batch)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.play(s); err != nil {
			t.Error(err)
		}
	})
}
