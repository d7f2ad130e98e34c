package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
	"github.com/tprelay/tprelay/internal/streamcheck"
)

func newMiddle(t *testing.T, fate handovertest.Fate) *handovertest.Middle {
	t.Helper()
	m, err := handovertest.NewMiddle(fate)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// crossing is a hand-over with two-way streams, between two engines that both go on whatever
// happens.
type crossing struct {
	*rig
	middle  *handovertest.Middle
	after   *rig // the new engine; nil if it never came to be
	streams []*streamcheck.Stream
	err     error // of HandOver
}

// interrupt runs beside a hand-over, and may cancel it. over is closed when HandOver has returned.
type interrupt func(cancel context.CancelCauseFunc, over <-chan struct{})

// cross hands streams over through m.
func cross(t *testing.T, m *handovertest.Middle, pairs int, beside interrupt) *crossing {
	t.Helper()
	r := newRig(t, engine.Options{Loops: 2})
	c := &crossing{rig: r, middle: m}
	slow := make(chan struct{})
	for i := range pairs {
		var o streamcheck.Options
		if i == 0 {
			o.ReadAfter = slow
		}
		client, server := r.pair()
		c.streams = append(c.streams, streamcheck.Begin(client, server, o))
	}
	for i, s := range c.streams[1:] {
		if err := s.Progress(patience); err != nil {
			t.Fatalf("stream %d: %v", i+1, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, c.err = r.HandOver(ctx, m.Old, nil)
	}()
	if beside != nil {
		go beside(cancel, over)
	}
	e, err := engine.TakeOver(t.Context(), engine.Options{Loops: 2, Listeners: []engine.Listener{r.listener}}, m.New)
	if err != nil {
		m.New.Close()
	} else {
		c.after = r.successor(e)
	}
	<-over
	close(slow)
	return c
}

// beginHandOver hands over through m, and says how it went.
func (r *rig) beginHandOver(ctx context.Context, m *handovertest.Middle) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := r.HandOver(ctx, m.Old, nil)
		done <- err
	}()
	return done
}

// successor is the same rig with the engine that has taken over, which runs.
func (r *rig) successor(e *engine.Engine) *rig {
	after := *r
	after.Engine = e
	after.run()
	return &after
}

// check waits for the end of all streams. Each pair had one owner at a time, and was reset only if
// the commit that gave it away was lost. The counters of both engines add up.
func (c *crossing) check() (resets int) {
	t := c.t
	t.Helper()
	for i, s := range c.streams {
		if err := s.Progress(patience); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
	}
	owners := map[uint64]int{}
	engines := []*rig{c.rig}
	if c.after != nil {
		engines = append(engines, c.after)
	}
	for _, r := range engines {
		r.Pairs(func(i engine.PairInfo) bool { owners[i.ID]++; return true })
	}
	for id, n := range owners {
		if n > 1 {
			t.Errorf("pair %d lives in both engines", id)
		}
	}
	for i, s := range c.streams {
		reset, err := s.Outcome()
		if err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		if reset {
			resets++
		}
	}
	var in, ended, handedOver, takenOver uint64
	for _, r := range engines {
		s := r.until("all ended", func(s engine.Stats) bool { return s.Active == 0 })
		in += s.Accepted
		var all uint64
		for _, n := range s.Ended {
			all += n
		}
		if s.Accepted+s.TakenOver != all {
			t.Errorf("%d accepted and %d taken over, %d ended", s.Accepted, s.TakenOver, all)
		}
		ended += all
		handedOver += s.HandedOver
		takenOver += s.TakenOver
	}
	if in+takenOver != ended {
		t.Errorf("%d accepted, %d taken over, %d ended in both engines", in, takenOver, ended)
	}
	if lost := int(handedOver - takenOver); resets != lost {
		t.Errorf("%d streams were reset, %d of %d pairs lost on the way", resets, lost, handedOver)
	}
	if c.after != nil {
		c.after.end()
	}
	c.middle.Close()
	return resets
}

// TestLinkCutAnywhereLeavesOneOwner cuts the link before, in the middle of and after each frame,
// both ways, while both engines live on and serve what they think is theirs.
func TestLinkCutAnywhereLeavesOneOwner(t *testing.T) {
	const pairs = 6
	whole := newMiddle(t, nil)
	c := cross(t, whole, pairs, nil)
	if c.err != nil {
		t.Fatal(c.err)
	}
	if n := c.check(); n > 0 {
		t.Fatalf("%d streams were reset", n)
	}
	places := whole.Places()
	cuts := 0
	for _, p := range places {
		t.Run(fmt.Sprintf("%d-%d-%d", p.Way, p.Frame, p.Offset), func(t *testing.T) {
			lost := handover.Kind(0)
			m := newMiddle(t, func(way handovertest.Way, frame int, f *handovertest.Frame) int {
				if way != p.Way || frame != p.Frame {
					return handovertest.Whole
				}
				lost = f.Kind
				return p.Offset
			})
			c := cross(t, m, pairs, nil)
			resets := c.check()
			// Behind an acknowledgement the commit may be under way, and is lost.
			commit := p.Way == handovertest.Down && lost == handover.KindCommit && m.Cut() ||
				p.Way == handovertest.Up && lost == handover.KindAck && !m.Cut()
			if resets > 0 && !commit {
				t.Errorf("%d streams were reset, and no commit was lost", resets)
			}
			if m.Cut() {
				cuts++
			}
		})
	}
	t.Logf("%d places, %d cuts", len(places), cuts)
	if cuts == 0 {
		t.Error("the link was never cut")
	}
}

// TestLostAndLateAcknowledgements: the new engine holds a batch, and its acknowledgement is lost,
// or arrives after the old engine has been told to give up. The old engine keeps the pairs.
func TestLostAndLateAcknowledgements(t *testing.T) {
	giveUp := errors.New("patience is over")
	for name, deliver := range map[string]bool{"lost": false, "late": true} {
		for how, end := range map[string]func(conn *net.UnixConn, cancel context.CancelCauseFunc){
			"shut down": func(conn *net.UnixConn, _ context.CancelCauseFunc) { handovertest.Shutdown(conn, unix.SHUT_RDWR) },
			"cancelled": func(_ *net.UnixConn, cancel context.CancelCauseFunc) { cancel(giveUp) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				gaveUp, held := make(chan struct{}), make(chan struct{}, 1)
				acks := 0
				m := newMiddle(t, func(way handovertest.Way, frame int, f *handovertest.Frame) int {
					if f.Kind != handover.KindAck {
						return handovertest.Whole
					}
					if acks++; acks < 2 {
						return handovertest.Whole
					}
					held <- struct{}{}
					<-gaveUp
					if deliver {
						return handovertest.Whole
					}
					return 0
				})
				c := cross(t, m, 40, func(cancel context.CancelCauseFunc, over <-chan struct{}) {
					<-held
					end(m.Old, cancel)
					<-over
					close(gaveUp)
				})
				want := handover.ErrPeerGone
				if how == "cancelled" {
					want = giveUp
				}
				if !errors.Is(c.err, want) {
					t.Errorf("%v, want %v", c.err, want)
				}
				m.Shutdown() // as by the end of the new process
				if n := c.check(); n > 0 {
					t.Errorf("%d streams were reset", n)
				}
			})
		}
	}
}

// TestEndOfTheWaitSplitsNothing cancels the context, or shuts the link down, at any moment: each
// pair still has one owner.
func TestEndOfTheWaitSplitsNothing(t *testing.T) {
	const pairs, rounds = 20, 40
	for i := range rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			frames := 5 + i*3/2 // the conversation has some sixty
			count := atomic.Int32{}
			reached := make(chan struct{}, 1)
			m := newMiddle(t, func(handovertest.Way, int, *handovertest.Frame) int {
				if int(count.Add(1)) == frames {
					reached <- struct{}{}
				}
				return handovertest.Whole
			})
			c := cross(t, m, pairs, func(cancel context.CancelCauseFunc, over <-chan struct{}) {
				select {
				case <-reached:
				case <-over:
					return
				}
				switch i % 4 {
				case 0:
					handovertest.Shutdown(m.Old, unix.SHUT_RD)
				case 1:
					handovertest.Shutdown(m.Old, unix.SHUT_WR)
				case 2:
					handovertest.Shutdown(m.Old, unix.SHUT_RDWR)
				case 3:
					cancel(nil)
				}
			})
			if c.err != nil {
				m.Shutdown() // as by the end of the new process
			}
			if n := c.check(); n > 0 {
				t.Errorf("%d streams were reset (%v)", n, c.err)
			}
		})
	}
}
