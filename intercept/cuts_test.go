package intercept_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/intercept/intercepttest"
)

// expect wants the same of a pair's upstream handler for every way to cut stream.
func expect(t *testing.T, i intercept.Interceptor, stream, want string, options ...intercepttest.Option) {
	t.Helper()
	open := func() intercept.Handler { return i.Open(intercept.Pair{ID: 17}).Upstream }
	if got, last := intercepttest.Run(t, open, []byte(stream), options...); string(got) != want || last != intercept.Forward {
		t.Errorf("%.100q became %.100q with verdict %d, want %.100q", stream, got, last, want)
	}
}

func replace(t *testing.T, old, new string) intercept.Interceptor {
	t.Helper()
	i, err := intercept.Replace(old, new)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestReplaceAcrossReads: what waits is less than an old text.
func TestReplaceAcrossReads(t *testing.T) {
	for _, c := range []struct{ old, new, stream string }{
		{"cat", "dog", "concatenate the cat, cat, ca"},
		{"cat", "dog", "a catcat"},
		{"a", "", "banana"},
		{"a", "aa", "banana"},
		{"aa", "b", "aaaaaaa"},
		{"aab", "x", "aaab aaaab aab aa"},
		{"abab", "ab", "ababababab ababa"},
		{"aaabc", "x", "aaaaabc aaaabc aaab"}, // what does not match ends with a beginning of the old text
		{"abcabd", "!", "abcabcabcabdabcab"},
		{"\x00\xff", "\n", "\x00\x00\xff\xff\x00"},
		{"absent", "x", "nothing of it here"},
		{"x", "y", ""},
	} {
		want := strings.ReplaceAll(c.stream, c.old, c.new)
		expect(t, replace(t, c.old, c.new), c.stream, want, intercepttest.MaxHeld(len(c.old)-1))
	}
}

func TestReplaceLongPeriodicText(t *testing.T) {
	old := strings.Repeat("a", intercept.MaxReplace-1) + "b"
	stream := strings.Repeat("a", 3*intercept.MaxReplace) + "b" + strings.Repeat("a", intercept.MaxReplace)
	expect(t, replace(t, old, "X"), stream, strings.ReplaceAll(stream, old, "X"))
}

func TestOnReadSeesBothDirections(t *testing.T) {
	d := intercept.OnRead(bytes.ToUpper).Open(intercept.Pair{})
	for _, h := range []intercept.Handler{d.Upstream, d.Downstream} {
		expect(t, only(h), "hello, world", "HELLO, WORLD")
	}
	cut := intercept.OnRead(func(b []byte) []byte { return b[1:] }).Open(intercept.Pair{})
	if got, _ := intercepttest.Feed(t, cut.Upstream, "abc", "de"); string(got) != "bce" {
		t.Errorf("got %q", got)
	}
}

// only gives h, which keeps no state, to one direction of every pair.
func only(h intercept.Handler) intercept.Interceptor {
	return intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision { return intercept.Decision{Upstream: h} })
}

func TestRecordedBytesPassUnchanged(t *testing.T) {
	r, err := intercept.Record(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	i := intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision { // a file of its own for each
		n++
		return intercept.Decision{Upstream: r.Open(intercept.Pair{ID: uint64(n)}).Upstream}
	})
	expect(t, i, "a record", "a record", intercepttest.MaxHeld(0))
	expect(t, intercept.Chain(i, replace(t, "record", "copy")), "a record", "a copy")
	if n, err := r.Failed(); n != 0 {
		t.Errorf("%d files failed: %v", n, err)
	}
}

func TestChainOutputIsNextInput(t *testing.T) {
	i := intercept.Chain(replace(t, "cat", "dog"), replace(t, "dogs", "birds"), replace(t, "bird", ""))
	for _, stream := range []string{"concatenated cats chase dogs, dogs bird", "catsbird", "cats ca"} {
		want := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(stream, "cat", "dog"), "dogs", "birds"), "bird", "")
		expect(t, i, stream, want)
	}
}

func TestChainPassesEndInOrder(t *testing.T) {
	holdAll := func(name string) intercept.Interceptor {
		return only(intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
			if !c.End {
				return intercept.Hold
			}
			fmt.Fprintf(c, "%s%d:", name, len(c.Data))
			return intercept.Forward
		}))
	}
	same := only(intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Forward }))
	i := intercept.Chain(holdAll("a"), same, holdAll("b"), holdAll("c"))
	expect(t, i, "12345", "c11:b8:a5:12345")
	expect(t, i, "", "c6:b3:a0:")
}

func TestChainInPlaceEditAndForeignData(t *testing.T) {
	upper := intercept.OnRead(bytes.ToUpper)
	inPlace := intercept.OnRead(func(b []byte) []byte {
		for i := range b {
			b[i]++
		}
		return b
	})
	expect(t, intercept.Chain(inPlace, upper, inPlace), "abc", "CDE")
	expect(t, intercept.Chain(replace(t, "ab", "xyz"), upper, inPlace), "abcab", "YZ[DYZ[")
}
