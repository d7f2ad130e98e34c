package engine

import (
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// Bare acknowledgements cost as much as messages: each is a packet that both hosts take
// through their whole stack. Two of them can be spared here without anybody having to wait.
//
// The last one of the outgoing handshake, when the client's first bytes are there already:
// it goes with these. Where they are not it goes at once, as the server may be the one to speak.
//
// That of a message which is read, when its reply follows. The kernel leaves it to the reply
// by itself in a dialogue, until one reply takes longer than its shortest delayed
// acknowledgement, 40 ms; then it acknowledges each message as soon as we read it. So an overloaded
// relay has twice the packets to send, takes longer still, and stays where it is: with 2,000
// connections at once either state holds itself up. It is told again that this is a
// dialogue, as long as replies are not much later than that.

// In milliseconds, from when a message was read to when its reply is passed on. The message has
// been waiting to be read before.
const replyMayBeLate, replyIsTooLate = 20, 80

// overloadEvents is the number of events at once from which on late replies are the relay's
// doing, and not the server's.
const overloadEvents = 256

// mayHoldACK: the server will hear from the client as soon as it can.
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
