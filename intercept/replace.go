package intercept

import (
	"bytes"
	"errors"
	"fmt"
)

// MaxReplace is how long the texts of [Replace] may be, in bytes.
const MaxReplace = 4 << 10

// Replace puts new in the place of each old, in both directions: what comes out
// of a direction is bytes.ReplaceAll of all that goes in, however the network
// cuts it. Old must not be empty; neither may be longer than MaxReplace.
//
// Bytes at the end of a read that may be the beginning of an old wait for the
// next read. So if a message can end with them, and its sender then waits for
// an answer, both sides wait: choose an old that ends where messages end.
func Replace(old, new string) (Interceptor, error) {
	switch {
	case old == "":
		return nil, errors.New("replace: nothing to look for: the old text is empty")
	case len(old) > MaxReplace:
		return nil, fmt.Errorf("replace: the old text has %d bytes: at most %d", len(old), MaxReplace)
	case len(new) > MaxReplace:
		return nil, fmt.Errorf("replace: the new text has %d bytes: at most %d", len(new), MaxReplace)
	}
	return both(&replacer{old: []byte(old), new: []byte(new), border: borders(old)}), nil
}

// replacer keeps nothing between calls: the bytes that wait are held for it.
type replacer struct {
	old, new []byte
	border   []int // see borders
}

// Handle replaces what is complete, and holds what may be incomplete.
func (r *replacer) Handle(c *Chunk) Verdict {
	rest := c.Data
	for {
		at := bytes.Index(rest, r.old)
		if at < 0 {
			break
		}
		c.Write(rest[:at])
		c.Write(r.new)
		rest = rest[at+len(r.old):]
	}
	c.Data = rest
	if c.End {
		return Forward
	}
	begun := r.begun(rest)
	if begun == 0 {
		return Forward
	}
	cut := len(rest) - begun
	c.Write(rest[:cut])
	c.Data = rest[cut:]
	return Hold
}

// begun is the length of the longest end of data that is a beginning of old.
// Data does not contain old.
func (r *replacer) begun(data []byte) int {
	if most := len(r.old) - 1; len(data) > most {
		data = data[len(data)-most:]
	}
	first := bytes.IndexByte(data, r.old[0])
	if first < 0 {
		return 0
	}
	// Invariant: n bytes of old match the end of what was looked at. It stays
	// below len(old), for data is shorter than that.
	n := 0
	for _, b := range data[first:] {
		for n > 0 && r.old[n] != b {
			n = r.border[n-1]
		}
		if r.old[n] == b {
			n++
		}
	}
	return n
}

// borders is the failure function of Knuth, Morris and Pratt: element i is the
// length of the longest proper beginning of s[:i+1] that is also its end. It
// keeps the search linear for texts like aaaaab, with which a sender could
// otherwise stall the loop.
func borders(s string) []int {
	border := make([]int, len(s))
	for i, n := 1, 0; i < len(s); i++ {
		for n > 0 && s[n] != s[i] {
			n = border[n-1]
		}
		if s[n] == s[i] {
			n++
		}
		border[i] = n
	}
	return border
}
