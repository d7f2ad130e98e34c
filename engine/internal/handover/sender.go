package handover

import "fmt"

// Sender is the old engine's side. See the package comment for its states.
type Sender struct {
	link  *Link
	state senderState
	err   error // why it has failed
}

type senderState string

const (
	senderNew     senderState = "new"
	senderGreeted senderState = "greeted"
	senderReady   senderState = "ready"
	senderOffered senderState = "offered"
	senderDone    senderState = "done"
)

// NewSender makes a sender that talks over link.
func NewSender(link *Link) *Sender { return &Sender{link: link, state: senderNew} }

// step goes from one state to another by way of f. A sender that has failed stays failed: whoever
// resumes what was not committed relies on it.
func (s *Sender) step(from, to senderState, f func() error) error {
	if s.err == nil && s.state != from {
		s.err = fmt.Errorf("hand-over: the sender is %s, not %s", s.state, from)
	}
	if s.err == nil {
		s.err = f()
	}
	if s.err == nil {
		s.state = to
	}
	return s.err
}

// Greet tells the new engine what is to come, and gives it the listening sockets. The descriptors
// stay the caller's.
func (s *Sender) Greet(generation uint64, pairs int, sockets []Socket) error {
	return s.step(senderNew, senderGreeted, func() error {
		if err := s.link.Send(KindHello, Hello{Version, generation, len(sockets), pairs}, nil); err != nil {
			return err
		}
		for _, socket := range sockets {
			if err := s.link.Send(KindListener, socket.Listener, []int{socket.FD}); err != nil {
				return err
			}
		}
		return nil
	})
}

// AwaitReady waits until the new engine's loops run. It has room for so many pairs.
func (s *Sender) AwaitReady() (room int, err error) {
	err = s.step(senderGreeted, senderReady, func() error {
		var r ready
		err := s.link.expectHead(KindReady, &r)
		room = r.Room
		return err
	})
	return room, err
}

// Offer sends frozen pairs and returns when the new engine holds all of them. The descriptors stay
// the caller's.
func (s *Sender) Offer(pairs []Pair) error {
	return s.step(senderReady, senderOffered, func() error {
		for _, p := range pairs {
			if err := s.link.SendPair(p); err != nil {
				return err
			}
		}
		if err := s.link.Send(KindSync, nil, nil); err != nil {
			return err
		}
		f, err := s.link.Expect(KindAck)
		f.Close()
		return err
	})
}

// Commit gives the pairs away that were offered. It does not wait, and a loop may call it. The link
// has room for it, as the other side has read everything before its acknowledgement. On success the
// pairs are the new engine's, whatever happens then; on error they stay the old one's, and none of
// them can be committed any more.
func (s *Sender) Commit() error {
	return s.step(senderOffered, senderReady, func() error { return s.link.SendNow(KindCommit) })
}

// Done gives the listeners away. It does not wait.
func (s *Sender) Done() error {
	return s.step(senderReady, senderDone, func() error { return s.link.SendNow(KindDone) })
}
