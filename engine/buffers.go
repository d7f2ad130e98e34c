package engine

import (
	"math/bits"

	"github.com/valyala/bytebufferpool"
)

// chunkSize is the most that one buffer of the pool holds, leastChunk the least that one
// is made for.
const (
	chunkSize  = 64 << 10
	leastChunk = 4 << 10
)

// buffers holds bytes that wait in user space: what a sink did not take at once,
// and what handlers hold back. Each such queue is a box of chunks; chunks are
// taken when there is something to keep, and given back the moment that they are
// empty.
type buffers struct {
	pool  bytebufferpool.Pool
	boxes []box
	free  []int32
}

// box is a queue of bytes. What was consumed of the first chunk is kept beside it,
// because the pool files buffers by their length when they come back: one that is
// drained by cutting its front teaches the pool that buffers are empty, and it then
// hands out such as must grow anew each time.
type box struct {
	chunks []*bytebufferpool.ByteBuffer // those before head are gone
	head   int
	off    int // consumed of chunks[head]
	size   int // memory of the chunks
}

// get lends an empty box.
func (s *buffers) get() int32 {
	if len(s.free) == 0 {
		s.boxes = append(s.boxes, box{})
		s.free = append(s.free, int32(len(s.boxes)-1))
	}
	id := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return id
}

// put takes a box back, whatever is still in it.
func (s *buffers) put(id int32) {
	x := &s.boxes[id]
	for x.head < len(x.chunks) {
		s.drop(x)
	}
	s.free = append(s.free, id)
}

// drop gives the first chunk back.
func (s *buffers) drop(x *box) {
	b := x.chunks[x.head]
	x.size -= cap(b.B)
	x.chunks[x.head] = nil
	x.head++
	x.off = 0
	s.pool.Put(b)
	if x.head == len(x.chunks) {
		x.chunks, x.head = x.chunks[:0], 0
	}
}

// bytes is the first run of bytes that wait, and all of them if they are no more
// than chunkSize and came at once; good until the next call for this box.
func (s *buffers) bytes(id int32) []byte {
	x := &s.boxes[id]
	if x.head == len(x.chunks) {
		return nil
	}
	return x.chunks[x.head].B[x.off:]
}

// append adds data behind. A chunk that is full is followed by another and never grows:
// each growth would leave the smaller one to the garbage collector, and resident
// memory would be a multiple of what is charged.
func (s *buffers) append(id int32, data []byte) {
	x := &s.boxes[id]
	for len(data) > 0 {
		if x.head == len(x.chunks) || room(x.chunks[len(x.chunks)-1]) == 0 {
			s.grow(x, len(data))
		}
		b := x.chunks[len(x.chunks)-1]
		n := min(len(data), room(b))
		b.B = append(b.B, data[:n]...)
		data = data[n:]
	}
}

func room(b *bytebufferpool.ByteBuffer) int { return min(cap(b.B), chunkSize) - len(b.B) }

// grow adds a chunk with room for n bytes, or for chunkSize.
func (s *buffers) grow(x *box, n int) {
	if x.head > len(x.chunks)/2 {
		n := copy(x.chunks, x.chunks[x.head:])
		x.chunks, x.head = x.chunks[:n], 0
	}
	b := s.pool.Get()
	b.Reset()
	if n = min(n, chunkSize); cap(b.B) < n {
		b.B = make([]byte, 0, max(leastChunk, 1<<bits.Len(uint(n-1))))
	}
	x.chunks = append(x.chunks, b)
	x.size += cap(b.B)
}

// copy is a copy of all that waits.
func (s *buffers) copy(id int32) (all []byte) {
	x := &s.boxes[id]
	off := x.off
	for _, b := range x.chunks[x.head:] {
		all = append(all, b.B[off:]...)
		off = 0
	}
	return all
}

// consume drops n bytes from the front, at most those that bytes gave.
func (s *buffers) consume(id int32, n int) {
	x := &s.boxes[id]
	x.off += n
	if x.off == len(x.chunks[x.head].B) {
		s.drop(x)
	}
}

// size is the memory of the box.
func (s *buffers) size(id int32) int { return s.boxes[id].size }

// inUse is the number of boxes lent out.
func (s *buffers) inUse() int { return len(s.boxes) - len(s.free) }
