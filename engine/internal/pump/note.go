package pump

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// What the kernel's answers say.
//
//	noteReceive    a recv of the source: bytes, a FIN, nothing now, or a failure
//	noteRead       how many bytes it brought of those asked for
//	noteWrite      a send to the sink
//	noteDelivered  bytes that the sink took
//	noteFlushed    the same, of bytes that were pending

// noteReceive notes what a recv of n bytes, or with an error, says of the source. The result is 0
// when there is nothing now, and when the source has ended (EOF is set).
func (d *Pump) noteReceive(t *turn, n int, err error) int {
	switch {
	case err == unix.EAGAIN:
		d.sourceEmpty(t)
		return 0
	case err != nil:
		t.sourceFailed(d, err)
		return 0
	case n == 0 && d.endedByReset(t):
		t.sourceFailed(d, nil)
	case n == 0:
		d.sawEnd()
	}
	return n
}

// sourceEmpty believes an EAGAIN of recv, with one exception: at urgent data, recv also says so
// when a signal is pending (Go's runtime sends SIGURG to preempt), however much is there.
func (d *Pump) sourceEmpty(t *turn) {
	if d.Is(Urgent) && sock.Unread(t.Source) > 0 {
		return
	}
	t.Count.SourceEmpty++
	d.cannotRead()
}

// endedByReset: the end that a read has just met is no FIN. A write tells of a reset by the bytes
// that it moved before, and keeps the error to itself; no event and no read says anything of it
// any more. But a connection that has come to its end before we sent our own FIN was reset. Where
// an event told of a FIN there is nothing to ask.
func (d *Pump) endedByReset(t *turn) bool {
	const closed = 7 // TCP_CLOSE in include/net/tcp_states.h
	return !d.Is(FINCame|Broken) && !t.Shut && sock.TCPInfo(t.Source, &t.tcp) && t.tcp.State == closed &&
		!sock.FINReceived(t.Source)
}

// noteRead notes how many bytes a recv of up to asked bytes brought. A short read means that the
// socket is empty, which spares the read that would only say so; but not when a FIN or urgent
// data is there too.
func (d *Pump) noteRead(n, asked int) {
	if n < asked && !d.Is(Ending|Urgent) {
		d.cannotRead()
	}
}

// noteWrite notes how a send of size bytes ended. Less than all clears the latch; EAGAIN is 0 and
// no error.
func (d *Pump) noteWrite(t *turn, n, size int, err error) (int, error) {
	if err == unix.EAGAIN {
		n, err = 0, nil
	}
	if err == nil && n < size {
		d.cannotWrite()
		t.Count.SinkFull++
	}
	return n, err
}

// noteDelivered notes that the sink took n bytes.
func (d *Pump) noteDelivered(t *turn, n int) {
	d.Bytes += uint64(n)
	d.Messages++
	if d.Is(ACKHeld) {
		// What the sink says next is acknowledged at once, as on any new connection: after a
		// handshake that carried bytes, the kernel would take it for the middle of a dialogue.
		d.Clear(ACKHeld)
		sock.QuickACK(t.Sink)
	}
	path := 0
	if d.Buffered(t.Env) {
		path = 1
	}
	t.result.Delivered[path] += n
}

// noteFlushed notes that the sink took n pending bytes.
func (d *Pump) noteFlushed(t *turn, n int) {
	d.Pending -= uint32(n)
	t.Count.Pending -= int64(n)
	d.noteDelivered(t, n)
}
