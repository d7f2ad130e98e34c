package soak

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// What interceptors look for and make. None of these bytes is in a stream's content
// otherwise, so that what an interceptor did can be told and undone.
const (
	label       = "\xffsoak"
	replaced    = "\xf0\xf1\xf2"
	replacement = "\xf8"

	// Where replaced stands in the content: once in each block.
	block      = 4096
	replacedAt = 100
)

// content is a stream that never ends, given by a seed. Each byte depends on its
// position, so that what is lost, doubled or out of order shows.
type content uint64

// word is the content's bytes 8i to 8i+7, but for what is to be replaced.
func (c content) word(i uint64) uint64 {
	z := uint64(c) + (i+1)*0x9e3779b97f4a7c15 // splitmix64
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) & 0x7f7f7f7f7f7f7f7f
}

// fill gives the bytes from position at on.
func (c content) fill(b []byte, at int64) {
	var word [8]byte
	rest := b
	for i := uint64(at); len(rest) > 0; {
		binary.LittleEndian.PutUint64(word[:], c.word(i/8))
		n := copy(rest, word[i%8:])
		rest, i = rest[n:], i+uint64(n)
	}
	end := at + int64(len(b))
	for start := at - at%block + replacedAt; start < end; start += block {
		for i := range len(replaced) {
			if o := start + int64(i) - at; o >= 0 && o < int64(len(b)) {
				b[o] = replaced[i]
			}
		}
	}
}

// whole moves the end of a message that would fall into text to be replaced behind that text: an
// interceptor holds the beginning of it back, and the receiver would wait for it for ever.
func whole(end int64) int64 {
	if o := end % block; o > replacedAt && o < replacedAt+int64(len(replaced)) {
		return end - o + replacedAt + int64(len(replaced))
	}
	return end
}

// checker compares what comes with what must, and undoes what interceptors did.
type checker struct {
	want    content
	at      int64 // bytes of the content that have come
	inLabel int   // bytes of a label that have come

	labels, replacements int

	buf []byte
}

// take checks the next bytes that came.
func (c *checker) take(b []byte) error {
	// As many bytes of the content, or more, where they were replaced by fewer.
	room := len(b) + len(replaced)*(len(b)/(block-len(replaced))+1)
	if len(c.buf) < room {
		c.buf = make([]byte, room)
	}
	want := c.buf[:room]
	c.want.fill(want, c.at)
	if c.inLabel == 0 && string(want[:len(b)]) == string(b) {
		c.at += int64(len(b))
		return nil
	}
	next := 0 // in want, which begins where the content was when we came
	for i, got := range b {
		switch {
		case c.label(got):
		case c.inLabel < 0:
			return fmt.Errorf("%w: byte %d: a label that is none", errCorrupt, c.at)
		case got == replacement[0] && c.at%block == replacedAt:
			c.at += int64(len(replaced))
			next += len(replaced)
			c.replacements++
		case got == want[next]:
			c.at++
			next++
		default:
			return fmt.Errorf("%w: byte %d is %#02x (%d of %d bytes that came at once): %s", errCorrupt, c.at, got, i, len(b), c.find(b[i:]))
		}
	}
	return nil
}

// label takes a byte that belongs to a label. inLabel is negative afterwards when it
// should have and does not.
func (c *checker) label(b byte) bool {
	if c.inLabel == 0 && b != label[0] {
		return false
	}
	if b != label[c.inLabel] {
		c.inLabel = -1
		return false
	}
	if c.inLabel++; c.inLabel == len(label) {
		c.inLabel = 0
		c.labels++
	}
	return true
}

// find says where in the content b would belong, which helps to find a bug.
func (c *checker) find(b []byte) string {
	n := min(len(b), 16)
	const window = 1 << 20
	from := max(c.at-window, 0)
	around := make([]byte, 2*window)
	c.want.fill(around, from)
	for i := 0; i+n <= len(around); i++ {
		if string(around[i:i+n]) == string(b[:n]) {
			return fmt.Sprintf("belongs to byte %d, %+d", from+int64(i), from+int64(i)-c.at)
		}
	}
	return fmt.Sprintf("% x belongs nowhere near", b[:n])
}

func TestCheckerFindsWhatIsWrong(t *testing.T) {
	const length = 3 * block
	c := content(7)
	sent := make([]byte, length)
	c.fill(sent, 0)
	for at := range int64(300) {
		piece := make([]byte, 50)
		c.fill(piece, at)
		if string(piece) != string(sent[at:at+50]) {
			t.Fatalf("bytes from %d on differ from those before", at)
		}
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	swapped := join(sent[:1000], sent[1001:1002], sent[1000:1001], sent[1002:])
	for what, c := range map[string]struct {
		came []byte
		ok   bool
	}{
		"as it is":                       {sent, true},
		"labels":                         {join([]byte(label), sent[:50], []byte(label), sent[50:]), true},
		"replaced":                       {join(sent[:replacedAt], []byte(replacement), sent[replacedAt+3:]), true},
		"byte lost":                      {join(sent[:1000], sent[1001:]), false},
		"byte doubled":                   {join(sent[:1000], sent[999:]), false},
		"block lost":                     {join(sent[:block], sent[2*block:]), false},
		"swapped":                        {swapped, false},
		"half a label":                   {join([]byte(label[:3]), sent), false},
		"replacement for something else": {join(sent[:200], []byte(replacement), sent[203:]), false},
		"from another stream":            {func() []byte { b := make([]byte, 100); content(8).fill(b, 0); return b }(), false},
	} {
		for _, piece := range []int{1, 7, 64, length * 2} {
			check := checker{want: 7}
			var err error
			for came := c.came; len(came) > 0 && err == nil; {
				n := min(piece, len(came))
				err = check.take(came[:n])
				came = came[n:]
			}
			if (err == nil) != c.ok {
				t.Errorf("%s, in pieces of %d: %v", what, piece, err)
			}
			if c.ok && check.at != length {
				t.Errorf("%s, in pieces of %d: %d bytes", what, piece, check.at)
			}
		}
	}
}
