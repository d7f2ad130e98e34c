package netlab

import "time"

const (
	// frameRoom is what the longest frame may need: a virtio_net_hdr, an Ethernet
	// header with a VLAN, and 64 KiB.
	frameRoom = 66 << 10

	chunkSize  = 1 << 20
	chunksMost = 256 // so a backlog holds 256 MiB
	spareMost  = 4
)

// A backlog holds the frames that are on their way, in order. Frames are read
// straight into chunks, one behind the other, and written from there, so that
// none is copied and small ones take little.
type backlog struct {
	chunks []*chunk // the oldest first; the last is being filled
	spare  []*chunk
}

type chunk struct {
	data   []byte
	used   int // of data
	frames []frameAt
	gone   int // of frames
}

// frameAt is where a frame is in its chunk, and when it came.
type frameAt struct {
	from, to int
	came     time.Duration
}

// room returns where to put the next frame, or nil if the backlog is full.
func (b *backlog) room() []byte {
	if n := len(b.chunks); n > 0 {
		if last := b.chunks[n-1]; len(last.data)-last.used >= frameRoom {
			return last.data[last.used:]
		}
	}
	if len(b.chunks) == chunksMost {
		return nil
	}
	var c *chunk
	if n := len(b.spare); n > 0 {
		c, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		c = &chunk{data: make([]byte, chunkSize)}
	}
	b.chunks = append(b.chunks, c)
	return c.data
}

// push takes the n bytes that were put where room said.
func (b *backlog) push(n int, came time.Duration) {
	c := b.chunks[len(b.chunks)-1]
	c.frames = append(c.frames, frameAt{c.used, c.used + n, came})
	c.used += n
}

// first returns the oldest frame, which is good until pop, or nil.
func (b *backlog) first() (frame []byte, came time.Duration) {
	if len(b.chunks) == 0 {
		return nil, 0
	}
	// Only the last chunk can be without frames, and then it is the only one.
	c := b.chunks[0]
	if c.gone == len(c.frames) {
		return nil, 0
	}
	f := c.frames[c.gone]
	return c.data[f.from:f.to], f.came
}

// pop drops the oldest frame.
func (b *backlog) pop() {
	c := b.chunks[0]
	if c.gone++; c.gone < len(c.frames) {
		return
	}
	c.used, c.gone, c.frames = 0, 0, c.frames[:0]
	if len(b.chunks) == 1 {
		return
	}
	copy(b.chunks, b.chunks[1:])
	b.chunks[len(b.chunks)-1] = nil
	b.chunks = b.chunks[:len(b.chunks)-1]
	if len(b.spare) < spareMost {
		b.spare = append(b.spare, c)
	}
}
