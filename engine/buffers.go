package engine

import (
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/valyala/bytebufferpool"
)

const (
	// chunkSize is the most that one buffer of the pool holds, leastChunk the least that one
	// is made for.
	chunkSize  = 64 << 10
	leastChunk = 4 << 10
	// gatherChunks is how many chunks one send takes at most.
	gatherChunks = 16
)

// buffers holds bytes that wait in user space: what a sink did not take at once,
// and what handlers hold back. Each such queue is a box of chunks; chunks are
// taken when there is something to keep, and given back the moment that they are
// empty.
type buffers struct {
	pool   bytebufferpool.Pool
	boxes  []box
	free   []int32
	vector [gatherChunks]unix.Iovec
}

// box is a queue of bytes.
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
	s.consume(id, s.waiting(id))
	s.free = append(s.free, id)
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

// grow adds a chunk: what the pool has, however small, for the same reason; else one with
// room for n bytes, or for chunkSize.
func (s *buffers) grow(x *box, n int) {
	if x.head > len(x.chunks)/2 {
		n := copy(x.chunks, x.chunks[x.head:])
		x.chunks, x.head = x.chunks[:n], 0
	}
	b := s.pool.Get()
	b.Reset()
	if cap(b.B) < leastChunk {
		b.B = make([]byte, 0, max(leastChunk, 1<<bits.Len(uint(min(n, chunkSize)-1))))
	}
	x.chunks = append(x.chunks, b)
	x.size += cap(b.B)
}

// gather is what waits in front, as much of it as one send takes, and how many bytes that
// are. It is good until the next call.
func (s *buffers) gather(id int32) (vector []unix.Iovec, size int) {
	x := &s.boxes[id]
	n, off := 0, x.off
	for ; n < gatherChunks && x.head+n < len(x.chunks); n++ {
		b := x.chunks[x.head+n].B[off:]
		s.vector[n].Base = &b[0]
		s.vector[n].SetLen(len(b))
		size += len(b)
		off = 0
	}
	return s.vector[:n], size
}

// consume drops n bytes from the front.
func (s *buffers) consume(id int32, n int) {
	x := &s.boxes[id]
	x.off += n
	for x.head < len(x.chunks) && x.off >= len(x.chunks[x.head].B) {
		b := x.chunks[x.head]
		x.chunks[x.head] = nil
		x.head++
		x.off -= len(b.B)
		x.size -= cap(b.B)
		// The pool learns from the lengths that come back what buffers to make, and which
		// are too large to be kept.
		b.B = b.B[:cap(b.B)]
		s.pool.Put(b)
	}
	if x.head == len(x.chunks) {
		x.chunks, x.head = x.chunks[:0], 0
	}
}

// appendTo adds a copy of all that waits to b.
func (s *buffers) appendTo(b []byte, id int32) []byte {
	x := &s.boxes[id]
	off := x.off
	for _, c := range x.chunks[x.head:] {
		b = append(b, c.B[off:]...)
		off = 0
	}
	return b
}

// waiting is how many bytes are in the box.
func (s *buffers) waiting(id int32) (n int) {
	x := &s.boxes[id]
	for _, b := range x.chunks[x.head:] {
		n += len(b.B)
	}
	return n - x.off
}

// size is the memory of the box.
func (s *buffers) size(id int32) int { return s.boxes[id].size }

// inUse is the number of boxes lent out.
func (s *buffers) inUse() int { return len(s.boxes) - len(s.free) }
