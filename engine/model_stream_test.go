package engine

import (
	"bytes"
	"io"
	"math/rand/v2"

	"github.com/tprelay/tprelay/intercept"
)

// What the model knows of a direction: which handler sits on it, and what the sink must
// get of what the source sent, whatever the reads and writes in between.

// behaviour is one way that a direction can be handled.
type behaviour struct {
	name   string
	handle func() intercept.Handler    // nil: nobody looks on
	want   func(sent []byte) []byte    // what arrives of sent; nil: all of it
	strip  func(arrived []byte) []byte // taken out of what arrived before comparing; nil: nothing
	// The number of bytes at which the handler closes or resets the pair; 0: never.
	closes, resets int
	growth         int // how many bytes one byte can become, if more than one
	holds          int // how many bytes it may hold back
	shrinks        int // in how many bytes at the end a stream that is cut may differ from one that goes on
}

// cutoff is where the closing, resetting and detaching handlers have seen enough.
const cutoff = 20_000

var behaviours = []behaviour{
	{name: "spliced"},
	{name: "looked at", handle: func() intercept.Handler {
		return intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Forward })
	}},
	{
		name:   "changed, then detached",
		handle: func() intercept.Handler { return &flip{left: cutoff} },
		want:   flipped,
	},
	{
		name:   "held back in blocks",
		handle: func() intercept.Handler { return block(60_000) },
		holds:  60_000,
	},
	{
		name: "doubled",
		handle: func() intercept.Handler {
			return intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
				c.Write(doubled(c.Data))
				c.Data = nil
				return intercept.Forward
			})
		},
		want:   doubled,
		growth: 2,
	},
	{
		name:   "replaced",
		handle: func() intercept.Handler { return replacing("ab", "vwxyz").Open(intercept.Pair{}).Upstream },
		want:   func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("ab"), []byte("vwxyz")) },
		growth: 3, holds: 1, shrinks: 1,
	},
	{
		name:   "labelled",
		handle: func() intercept.Handler { return intercept.Label("\xff").Open(intercept.Pair{}).Upstream },
		strip:  func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\xff"), nil) },
		growth: 2,
	},
	{
		name: "replaced twice",
		handle: func() intercept.Handler {
			return intercept.Chain(replacing("aba", "b"), replacing("bb", "cat")).Open(intercept.Pair{}).Upstream
		},
		want: func(b []byte) []byte {
			b = bytes.ReplaceAll(b, []byte("aba"), []byte("b"))
			return bytes.ReplaceAll(b, []byte("bb"), []byte("cat"))
		},
		growth: 2, holds: 3, shrinks: 3,
	},
	{
		name:   "closed",
		handle: func() intercept.Handler { return &stop{left: cutoff, verdict: intercept.Close} },
		want:   func(b []byte) []byte { return b[:min(len(b), cutoff)] },
		closes: cutoff,
	},
	{
		name:   "reset",
		handle: func() intercept.Handler { return &stop{left: cutoff, verdict: intercept.Reset} },
		resets: cutoff,
	},
}

func replacing(old, new string) intercept.Interceptor {
	i, err := intercept.Replace(old, new)
	if err != nil {
		panic(err)
	}
	return i
}

// flip changes the first bytes, whatever the chunks, and then lets go.
type flip struct{ left int }

func (f *flip) Handle(c *intercept.Chunk) intercept.Verdict {
	n := min(len(c.Data), f.left)
	for i := range n {
		c.Data[i] ^= 0x20
	}
	if f.left -= n; f.left == 0 {
		return intercept.Detach
	}
	return intercept.Forward
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	(&flip{left: cutoff}).Handle(&intercept.Chunk{Data: b})
	return b
}

// block sends on whole blocks only, until the end.
type block int

func (size block) Handle(c *intercept.Chunk) intercept.Verdict {
	whole := len(c.Data) / int(size) * int(size)
	c.Write(c.Data[:whole])
	c.Data = c.Data[whole:]
	return intercept.Hold
}

func doubled(b []byte) []byte {
	out := make([]byte, 0, 2*len(b))
	for _, x := range b {
		out = append(out, x, x)
	}
	return out
}

// stop ends the pair behind the first bytes.
type stop struct {
	left    int
	verdict intercept.Verdict
}

func (s *stop) Handle(c *intercept.Chunk) intercept.Verdict {
	n := min(len(c.Data), s.left)
	c.Data = c.Data[:n]
	if s.left -= n; s.left == 0 {
		return s.verdict
	}
	return intercept.Forward
}

// counted is a handler that notes how it is called.
type counted struct {
	intercept.Handler
	ends, closed int
	done         bool // it said that it would not be called again
	late         bool // but it was
}

func (h *counted) Handle(c *intercept.Chunk) intercept.Verdict {
	h.late = h.late || h.done || h.closed > 0
	if c.End {
		h.ends++
	}
	end := c.End
	v := h.Handler.Handle(c)
	h.done = end || v == intercept.Detach || v == intercept.Close || v == intercept.Reset
	return v
}

func (h *counted) Close() error {
	h.closed++
	if c, ok := h.Handler.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// text is what ends send: few letters, so that replacing finds something, in an order
// that does not repeat.
var text = func() []byte {
	b := make([]byte, 4<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = "aaabbbcde\n"[r.IntN(10)]
	}
	return b
}()
