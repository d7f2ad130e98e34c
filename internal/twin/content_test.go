package twin

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// Every byte of a stream tells its place: streams are the same random bytes, each from another
// place on. A loss of exactly one period would not show; the period is odd for that reason.
const period = 3<<20 + 3*block

// What the handler of the relay replaces stands once in each block. Both forms are of one length,
// so that positions stay.
const (
	block    = 4096
	matchAt  = 100
	original = "\xf0\xf1\xf2"
	replaced = "\xf8\xf9\xfa"
)

// texts are the random bytes, as they are sent and as a handler makes them, twice in a row.
var texts = sync.OnceValue(func() (t struct{ plain, handled []byte }) {
	t.plain = make([]byte, 2*period)
	random := rand.NewChaCha8([32]byte{7})
	random.Read(t.plain[:period])
	for i := range t.plain[:period] {
		t.plain[i] &= 0x7f
	}
	t.handled = t.plain
	fill := func(match string) []byte {
		b := bytes.Clone(t.plain)
		for at := matchAt; at < period; at += block {
			copy(b[at:], match)
		}
		copy(b[period:], b[:period])
		return b
	}
	t.plain, t.handled = fill(original), fill(replaced)
	return t
})

// content is a stream: where in the texts it begins. Streams begin with a block.
type content int64

// stream is the n-th stream.
func stream(n int64) content { return content(n * 7 * block % period) }

// at gives up to most bytes from a position on, without copying them.
func (c content) at(pos, most int64, handled bool) []byte {
	text := texts().plain
	if handled {
		text = texts().handled
	}
	from := (int64(c) + pos) % period
	return text[from : from+min(most, period)]
}

// whole moves the end of a message that would fall into a match behind that match: the handler
// holds the beginning of a match back, and the receiver would wait for it for ever.
func whole(end int64) int64 {
	if o := end % block; o > matchAt && o < matchAt+int64(len(original)) {
		return end - o + matchAt + int64(len(original))
	}
	return end
}

// half moves the end of a message into the middle of a match.
func half(end int64) int64 { return end - end%block + matchAt + 1 + end%2 }

// checker compares what comes with what was sent.
type checker struct {
	want    content
	handled bool
	n       int64 // bytes that have come
	tail    bool  // they end with the beginning of a match as it was sent
}

// take compares the next bytes.
func (c *checker) take(b []byte) error {
	for len(b) > 0 {
		want := c.want.at(c.n, int64(len(b)), c.handled)
		if c.tail || !bytes.Equal(b[:len(want)], want) {
			return c.partial(b)
		}
		c.n += int64(len(want))
		b = b[len(want):]
	}
	return nil
}

// partial: the sender ended within a match, which the handler then could not replace.
func (c *checker) partial(b []byte) error {
	end := c.n + int64(len(b))
	o := end % block
	if !c.handled || whole(end) == end || int64(len(b)) > period {
		return c.wrong(b)
	}
	tail := min(o-matchAt, int64(len(b)))
	head := int64(len(b)) - tail
	if !bytes.Equal(b[:head], c.want.at(c.n, head, true)) || !bytes.Equal(b[head:], c.want.at(c.n+head, tail, false)) {
		return c.wrong(b)
	}
	c.tail, c.n = true, end
	return nil
}

// wrong says which byte is not right, and where it would belong.
func (c *checker) wrong(b []byte) error {
	want := c.want.at(c.n, int64(len(b)), c.handled)
	i := 0
	for i < len(want) && b[i] == want[i] {
		i++
	}
	rest := b[i:min(len(b), i+16)]
	from := int(int64(c.want) % period)
	if at := bytes.Index(texts().plain[from:], rest); at >= 0 && len(rest) >= 4 {
		return fmt.Errorf("byte %d is the stream's byte %d (or %d more)", c.n+int64(i), at, period)
	}
	return fmt.Errorf("byte %d begins % x, which is nowhere in the stream", c.n+int64(i), rest)
}

func TestCheckerFindsWhatIsWrong(t *testing.T) {
	const size = 3*block + 50
	c := stream(5)
	plain, handled := c.at(0, size, false), c.at(0, size, true)
	cut := func(b []byte, at int, more ...[]byte) []byte {
		return bytes.Join(append([][]byte{b[:at]}, more...), nil)
	}
	within := block + matchAt + 1
	for what, k := range map[string]struct {
		came    []byte
		handled bool
		ok      bool
	}{
		"as sent":                     {plain, false, true},
		"replaced":                    {handled, true, true},
		"not replaced by the handler": {plain, true, false},
		"replaced by nobody":          {handled, false, false},
		"a byte lost":                 {cut(plain, 1000, plain[1001:]), false, false},
		"a byte doubled":              {cut(plain, 1000, plain[999:]), false, false},
		"a block lost":                {cut(plain, block, plain[2*block:]), false, false},
		"of another stream":           {stream(6).at(0, size, false), false, false},
		"ends within a match":         {cut(handled, within-1, plain[within-1:within]), true, true},
		"goes on after half a match":  {cut(handled, within-1, plain[within-1:within], handled[within:]), true, false},
	} {
		for _, piece := range []int{1, 64, 2 * size} {
			check := checker{want: c, handled: k.handled}
			var err error
			for b := k.came; len(b) > 0 && err == nil; b = b[min(piece, len(b)):] {
				err = check.take(b[:min(piece, len(b))])
			}
			if (err == nil) != k.ok {
				t.Errorf("%s, in pieces of %d: %v", what, piece, err)
			}
		}
	}
}
