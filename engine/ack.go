package engine

import (
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// Bare acknowledgements cost as much as messages: each is a packet that both hosts take through
// their whole stack. Two kinds can be spared without a delay for either end.
//
// The last packet of the outgoing handshake. When the client's first bytes are there already, the
// acknowledgement goes with them. Otherwise it goes at once, because the server may speak first.
//
// The acknowledgement of a message whose reply follows. In a dialogue the kernel leaves it to the
// reply, until one reply takes longer than the shortest delayed acknowledgement, 40 ms. From then
// on it acknowledges each message as soon as the relay reads it. An overloaded relay then has twice
// the packets to send, takes longer still, and stays overloaded: with 2,000 connections at once
// either state is stable. So the relay tells the kernel again that this is a dialogue, as long as
// replies are not much later than that.

// In milliseconds, from when a message was read to when its reply is passed on. The message may
// have waited to be read before.
const replyMayBeLate, replyIsTooLate = 20, 80

// overloadEvents is the number of events at once from which on late replies are the relay's
// doing, and not the server's.
const overloadEvents = 256

// mayHoldACK reports that the client's first bytes are there, and will go to the server at once.
func (l *loop) mayHoldACK(p *pair) bool {
	return !p.dir[upstream].Is(pump.Handled) && sock.Unread(int(p.fd[incoming])) > 0
}

// noteReply notes that what direction d has carried is replied to now, in milliseconds.
func (l *loop) noteReply(d *pump.Pump, now uint32) {
	took, known := d.EndRun(now)
	if l.overloaded && known && took >= replyMayBeLate && took < replyIsTooLate {
		d.Set(pump.DelayACK)
	} else {
		d.Clear(pump.DelayACK)
	}
}
