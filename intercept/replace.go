package intercept

import (
	"bytes"
	"errors"
	"fmt"
)

// MaxReplace is how long each text of [Replace] may be at most, in bytes.
const MaxReplace = 4 << 10

// Replace replaces each old by new, in both directions. A direction's output is bytes.ReplaceAll of
// its whole input, wherever the network cuts it. It is an error if old is empty, or if either is
// longer than MaxReplace.
//
// Bytes at the end of a read that may be the beginning of an old wait for the next read. If a
// message can end with such bytes and its sender then waits for an answer, both sides wait. So
// choose an old that ends where messages end.
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
