package handover

import (
	"fmt"
	"io"
)

// Receiver is the new engine's side. See the package comment for its states.
type Receiver struct {
	link  *Link
	state receiverState
	held  []Pair // the old engine's, until it commits them
}

type receiverState string

const (
	receiverNew     receiverState = "new"
	receiverGreeted receiverState = "greeted"
	receiverHolding receiverState = "holding"
	receiverAcked   receiverState = "acked"
	receiverDone    receiverState = "done"
	receiverFailed  receiverState = "failed"
)

// NewReceiver makes a receiver that listens to link.
func NewReceiver(link *Link) *Receiver { return &Receiver{link: link, state: receiverNew} }

// Greet waits for what the old engine says first, and for its listening sockets, whose descriptors
// are the caller's.
func (r *Receiver) Greet() (hello Hello, sockets []Socket, err error) {
	if err := r.leave(receiverNew); err != nil {
		return hello, nil, err
	}
	if hello, err = r.hello(); err != nil {
		return hello, nil, err
	}
	for range hello.Sockets {
		s, err := r.socket()
		if err != nil {
			CloseSockets(sockets)
			return hello, nil, err
		}
		sockets = append(sockets, s)
	}
	r.state = receiverGreeted
	return hello, sockets, nil
}

// leave makes the state failed, which it stays unless the caller gets further.
func (r *Receiver) leave(from receiverState) error {
	if r.state != from {
		return fmt.Errorf("hand-over: the receiver is %s, not %s", r.state, from)
	}
	r.state = receiverFailed
	return nil
}

func (r *Receiver) hello() (hello Hello, err error) {
	if err := r.link.expectHead(KindHello, &hello); err != nil {
		return hello, err
	}
	if hello.Version != Version {
		return hello, fmt.Errorf("hand-over: the other side speaks version %d, this one %d; restart instead", hello.Version, Version)
	}
	return hello, nil
}

func (r *Receiver) socket() (s Socket, err error) {
	f, err := r.link.Expect(KindListener)
	if err != nil {
		return s, err
	}
	if err = f.parse(&s.Listener); err == nil && len(f.FDs) != 1 {
		err = fmt.Errorf("hand-over: a listener came with %d descriptors", len(f.FDs))
	}
	if err != nil {
		f.Close()
		return s, err
	}
	s.FD = f.FDs[0]
	return s, nil
}

// Ready says that the loops run, and that there are descriptors for so many pairs. Errors of
// sending are passed over, here and in Next: only what comes tells what is ours, and the old engine
// can close the link behind a commit that is still to be read.
func (r *Receiver) Ready(room int) error {
	if err := r.leave(receiverGreeted); err != nil {
		return err
	}
	_ = r.link.Send(KindReady, ready{room}, nil)
	r.state = receiverHolding
	return nil
}

// Next waits for pairs. Those that it returns, and their descriptors, are the caller's from then on
// and no longer the old engine's. io.EOF says that no more will come, and that the listeners are
// the caller's as well. ErrPeerGone says that the old process is gone. After an error nothing is
// held any more.
func (r *Receiver) Next() (pairs []Pair, err error) {
	for {
		f, err := r.link.Receive()
		if err == nil {
			pairs, err = r.take(&f)
			f.Close()
		}
		if err != nil {
			r.drop()
			return nil, err
		}
		if pairs != nil {
			return pairs, nil
		}
	}
}

// take takes in one frame. What it keeps of the frame's descriptors it takes out of it.
func (r *Receiver) take(f *Frame) (committed []Pair, err error) {
	switch {
	case f.Kind == KindPair && r.state == receiverHolding:
		p, err := f.Pair()
		if err != nil {
			return nil, err
		}
		r.held = append(r.held, p)
		f.FDs = nil
	case f.Kind == KindSync && r.state == receiverHolding:
		r.state = receiverAcked
		_ = r.link.Send(KindAck, nil, nil)
	case f.Kind == KindCommit && r.state == receiverAcked:
		r.state = receiverHolding
		committed, r.held = r.held, nil
		return committed, nil
	case f.Kind == KindDone && r.state == receiverHolding && len(r.held) == 0:
		r.state = receiverDone
		return nil, io.EOF
	default:
		return nil, fmt.Errorf("hand-over: frame %q is not expected now", byte(f.Kind))
	}
	return nil, nil
}

// drop closes what is held: it is the old engine's, or has lost its owner and is reset.
func (r *Receiver) drop() {
	for i := range r.held {
		r.held[i].Close()
	}
	r.held = nil
	if r.state != receiverDone {
		r.state = receiverFailed
	}
}

// Close closes the connection. A call that waits for the old engine returns with net.ErrClosed.
func (r *Receiver) Close() { r.link.conn.Close() }
