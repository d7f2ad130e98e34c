package bottleneck

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

// clock gives the time since it was made. Both ends share one.
type clock struct{ base time.Time }

func (c clock) now() time.Duration { return time.Since(c.base) }

// stamp writes a block's header.
func stamp(block []byte, number uint64, at time.Duration) {
	binary.BigEndian.PutUint64(block, number)
	binary.BigEndian.PutUint64(block[8:], uint64(at))
}

// delay is how long a block took, in seconds, when it had arrived at seconds.
type delay struct{ at, took float64 }

// delays are those of all connections of a transfer.
type delays struct {
	mu  sync.Mutex
	all []delay
}

func (d *delays) add(one delay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, one)
}

// since gives the delays after the first n.
func (d *delays) since(n int) []delay {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[n:len(d.all):len(d.all)]
}

// counts is what the two ends count.
type counts struct{ sent, arrived atomic.Int64 }

var errWrongBytes = errors.New("wrong bytes arrived: not those that were sent, or not in their order")

// blocks puts together what arrives on one connection, and takes the delays.
type blocks struct {
	clock   clock
	delays  *delays
	partial []byte
	next    uint64
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
		b.delays.add(delay{now.Seconds(), (now - at).Seconds()})
	}
	return nil
}
