package flow

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// blockSize is what is stamped as a whole, in bytes. A block begins with its number and
// the time at which the sender's socket took it.
const (
	blockSize   = 8 << 10
	blockHeader = 16
)

// clock gives the time since it was made: both ends share one.
type clock struct{ base time.Time }

func (c clock) now() time.Duration { return time.Since(c.base) }

// stamp writes a block's header.
func stamp(block []byte, number uint64, at time.Duration) {
	binary.BigEndian.PutUint64(block, number)
	binary.BigEndian.PutUint64(block[8:], uint64(at))
}

// delay is how long a block took, in seconds, when it had arrived at seconds.
type delay struct{ at, took float64 }

// counts is what the two ends count.
type counts struct{ sent, arrived atomic.Int64 }

var errWrongBytes = errors.New("wrong bytes arrived: not those that were sent, or not in their order")

// blocks puts together what arrives, and takes the delays.
type blocks struct {
	clock   clock
	partial []byte
	next    uint64

	mu     sync.Mutex
	delays []delay
}

// take takes bytes that have arrived. They are not kept.
func (b *blocks) take(p []byte) error {
	for len(p) > 0 {
		n := min(blockSize-len(b.partial), len(p))
		b.partial = append(b.partial, p[:n]...)
		p = p[n:]
		if len(b.partial) < blockSize {
			return nil
		}
		number, at := binary.BigEndian.Uint64(b.partial), time.Duration(binary.BigEndian.Uint64(b.partial[8:]))
		if number != b.next {
			return errWrongBytes
		}
		b.next++
		b.partial = b.partial[:0]
		now := b.clock.now()
		b.mu.Lock()
		b.delays = append(b.delays, delay{now.Seconds(), (now - at).Seconds()})
		b.mu.Unlock()
	}
	return nil
}

// since gives the delays after the first n.
func (b *blocks) since(n int) []delay {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.delays[n:len(b.delays):len(b.delays)]
}
