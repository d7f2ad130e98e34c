package engine

import "github.com/valyala/bytebufferpool"

// buffers holds bytes that wait in user space: what a sink did not take at once,
// and what handlers hold back. A buffer is taken when there is something to
// keep, and given back the moment that it is empty.
type buffers struct {
	pool  bytebufferpool.Pool
	boxes []box
	free  []int32
}

// box is a buffer and how much of it was consumed. The offset is kept beside the
// buffer because the pool files buffers by their length when they come back: one
// that is drained by cutting its front teaches the pool that buffers are empty,
// and it then hands out such as must grow anew each time.
type box struct {
	b    *bytebufferpool.ByteBuffer
	off  int
	most int // the greatest length that it had
}

// get lends an empty buffer.
func (s *buffers) get() int32 {
	if len(s.free) == 0 {
		s.boxes = append(s.boxes, box{})
		s.free = append(s.free, int32(len(s.boxes)-1))
	}
	id := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	b := s.pool.Get()
	b.Reset()
	s.boxes[id] = box{b: b}
	return id
}

// put takes a buffer back, whatever is still in it.
func (s *buffers) put(id int32) {
	x := &s.boxes[id]
	x.b.B = x.b.B[:x.most]
	s.pool.Put(x.b)
	*x = box{}
	s.free = append(s.free, id)
}

// bytes is what waits in the buffer; good until the next call for it.
func (s *buffers) bytes(id int32) []byte {
	x := &s.boxes[id]
	return x.b.B[x.off:]
}

// append adds data behind, and returns by how much the buffer's memory grew.
func (s *buffers) append(id int32, data []byte) (grown int) {
	x := &s.boxes[id]
	before := cap(x.b.B)
	if len(x.b.B)+len(data) > before && x.off >= len(x.b.B)/2 {
		// At least half of it is dead: to move the rest costs less than was
		// saved by not moving it before.
		n := copy(x.b.B, x.b.B[x.off:])
		x.b.B, x.off = x.b.B[:n], 0
	}
	x.b.B = append(x.b.B, data...)
	x.most = max(x.most, len(x.b.B))
	return cap(x.b.B) - before
}

// consume drops n bytes from the front.
func (s *buffers) consume(id int32, n int) { s.boxes[id].off += n }

// size is the memory of the buffer.
func (s *buffers) size(id int32) int { return cap(s.boxes[id].b.B) }

// inUse is the number of buffers lent out.
func (s *buffers) inUse() int { return len(s.boxes) - len(s.free) }
