// Package tokenbucket is a transparent TCP relay that is paced by a timer, the well-known way to
// slow a sender down without feedback from the receiver: each direction holds at most what the rate
// allows for one tick, passes that on at the tick, and reads no more until then. tpbench calls it
// tokenbucket.
//
//	relay := tokenbucket.Relay{Listen: netip.MustParseAddrPort("127.0.0.1:9091"), Rate: 6_000_000}
//	err := relay.Run(ctx)
//
// The rate is a guess, made once. If the link behind the relay is faster, the relay is the
// bottleneck. If it is slower, the kernel's send buffer takes the difference, and the sender sees
// the guessed rate until that is full. If the guess is right, bytes that arrive within a tick still
// wait for the next.
package tokenbucket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/tprelay/tprelay/bench/relays/iocopy"
)

const (
	// tick is the period of the timer: at 6 Mbit/s, 7,500 bytes.
	tick = 10 * time.Millisecond
	// least is what a tick lets pass at least: less would split packets.
	least = 1500
)

// Relay accepts connections that TPROXY diverts, and opens the other side of each to its original
// destination, bound to the client's address and port.
type Relay struct {
	// Listen is where it listens.
	Listen netip.AddrPort
	// Rate is what each direction of a pair may pass on, in bit/s. A direction never
	// gets less than 1,500 bytes per tick, 1.2 Mbit/s.
	Rate uint64
}

// Run relays until ctx ends. The error says why it cannot listen.
func (r *Relay) Run(ctx context.Context) error {
	relay := iocopy.Relay{Listen: r.Listen, Pass: r.pass}
	return relay.Run(ctx)
}

// threshold is how many bytes a direction may hold, and pass on at one tick.
func (r *Relay) threshold() int {
	return int(max(r.Rate/8*uint64(tick/time.Millisecond)/1000, least))
}

// pass relays one direction until its end, a threshold per tick. Only a receiver that takes less
// than that blocks it.
func (r *Relay) pass(to io.Writer, from *net.TCPConn) error {
	queue := make([]byte, r.threshold())
	next := time.Now()
	for {
		// While nothing is held, no timer runs.
		n, err := fill(from, queue, next)
		if n > 0 {
			time.Sleep(time.Until(next))
			if _, err := to.Write(queue[:n]); err != nil {
				return err
			}
			// A tick that was missed is not made up for.
			next = time.Now().Add(tick)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill waits for the first bytes, and then reads until the queue is full or the tick is due.
func fill(from *net.TCPConn, queue []byte, next time.Time) (n int, err error) {
	if err := from.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	if n, err = from.Read(queue); err != nil {
		return n, err
	}
	if err := from.SetReadDeadline(next); err != nil {
		return n, err
	}
	for n < len(queue) {
		more, err := from.Read(queue[n:])
		n += more
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
