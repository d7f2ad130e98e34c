// Package chunks keeps bytes that wait in user space: what a sink did not take at once, and
// what handlers hold back.
//
//	var q chunks.Queues
//	id := q.Get()
//	q.Append(id, data)
//	vector, size := q.Gather(id) // for one sendmsg(2)
//	q.Consume(id, sent)
//	q.Put(id)
//
// Queues belong to one event loop: no method is safe for concurrent use.
package chunks

import (
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/valyala/bytebufferpool"
)

const (
	// chunkSize is the most that one buffer of the pool holds. leastChunk is the smallest
	// buffer that is made.
	chunkSize  = 64 << 10
	leastChunk = 4 << 10
	// gatherChunks is the largest number of chunks in one send.
	gatherChunks = 16
)

// ID names a queue of Queues.
type ID int32

// Queues is a set of byte queues that share a pool of chunks. A queue takes a chunk when it has
// something to keep, and returns it as soon as the chunk is empty. The zero value is ready.
type Queues struct {
	pool   bytebufferpool.Pool
	queues []queue
	free   []ID
	vector [gatherChunks]unix.Iovec
}

// queue is a queue of bytes.
type queue struct {
	chunks []*bytebufferpool.ByteBuffer // those before head are gone
	head   int
	off    int // consumed of chunks[head]
	size   int // memory of the chunks
}

// Get lends an empty queue.
func (s *Queues) Get() ID {
	if len(s.free) == 0 {
		s.queues = append(s.queues, queue{})
		s.free = append(s.free, ID(len(s.queues)-1))
	}
	id := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return id
}

// Put takes a queue back. Bytes that are still in it are lost.
func (s *Queues) Put(id ID) {
	s.Consume(id, s.Len(id))
	s.free = append(s.free, id)
}

// Append adds a copy of data at the end. A full chunk is followed by another one and never
// grows: each growth would leave the smaller buffer to the garbage collector, and resident
// memory would be a multiple of what is charged.
func (s *Queues) Append(id ID, data []byte) {
	q := &s.queues[id]
	for len(data) > 0 {
		if q.head == len(q.chunks) || room(q.chunks[len(q.chunks)-1]) == 0 {
			s.grow(q, len(data))
		}
		b := q.chunks[len(q.chunks)-1]
		n := min(len(data), room(b))
		b.B = append(b.B, data[:n]...)
		data = data[n:]
	}
}

func room(b *bytebufferpool.ByteBuffer) int { return min(cap(b.B), chunkSize) - len(b.B) }

// grow adds a chunk. A buffer from the pool is used however small it is, for the reason given
// at Append. A new one has room for n bytes, or for chunkSize.
func (s *Queues) grow(q *queue, n int) {
	if q.head > len(q.chunks)/2 {
		n := copy(q.chunks, q.chunks[q.head:])
		q.chunks, q.head = q.chunks[:n], 0
	}
	b := s.pool.Get()
	b.Reset()
	if cap(b.B) < leastChunk {
		b.B = make([]byte, 0, max(leastChunk, 1<<bits.Len(uint(min(n, chunkSize)-1))))
	}
	q.chunks = append(q.chunks, b)
	q.size += cap(b.B)
}

// Gather returns the bytes at the front, as many as one send takes, and their number. The
// vector is valid until the next call.
func (s *Queues) Gather(id ID) (vector []unix.Iovec, size int) {
	q := &s.queues[id]
	n, off := 0, q.off
	for ; n < gatherChunks && q.head+n < len(q.chunks); n++ {
		b := q.chunks[q.head+n].B[off:]
		s.vector[n].Base = &b[0]
		s.vector[n].SetLen(len(b))
		size += len(b)
		off = 0
	}
	return s.vector[:n], size
}

// Consume drops n bytes from the front.
func (s *Queues) Consume(id ID, n int) {
	q := &s.queues[id]
	q.off += n
	for q.head < len(q.chunks) && q.off >= len(q.chunks[q.head].B) {
		b := q.chunks[q.head]
		q.chunks[q.head] = nil
		q.head++
		q.off -= len(b.B)
		q.size -= cap(b.B)
		// The pool learns from the lengths that come back how large buffers should be, and
		// which are too large to keep. A drained buffer would teach it that buffers are empty.
		b.B = b.B[:cap(b.B)]
		s.pool.Put(b)
	}
	if q.head == len(q.chunks) {
		q.chunks, q.head = q.chunks[:0], 0
	}
}

// AppendTo appends a copy of all bytes in the queue to b.
func (s *Queues) AppendTo(b []byte, id ID) []byte {
	q := &s.queues[id]
	off := q.off
	for _, c := range q.chunks[q.head:] {
		b = append(b, c.B[off:]...)
		off = 0
	}
	return b
}

// Len is the number of bytes in the queue.
func (s *Queues) Len(id ID) (n int) {
	q := &s.queues[id]
	for _, b := range q.chunks[q.head:] {
		n += len(b.B)
	}
	return n - q.off
}

// Size is the memory of the queue's chunks, in bytes.
func (s *Queues) Size(id ID) int { return s.queues[id].size }

// InUse is the number of queues that are lent.
func (s *Queues) InUse() int { return len(s.queues) - len(s.free) }
