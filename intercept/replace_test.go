package intercept

import (
	"bytes"
	"strings"
	"testing"
)

func replaceHandler(t testing.TB, old, new string) Handler {
	t.Helper()
	i, err := Replace(old, new)
	noError(t, err)
	d := i.Open(testPair)
	if d.Upstream == nil || d.Downstream == nil {
		t.Fatal("a direction has no handler")
	}
	return d.Upstream
}

func TestReplaceHoldsOnlyWhatMayBeginTheOldText(t *testing.T) {
	h := replaceHandler(t, "needle", "thread")
	for _, c := range []struct{ data, out, held string }{
		{"hay", "hay", ""},
		{"hay nee", "hay ", "nee"},
		{"n", "", "n"},
		{"needl", "", "needl"},
		{"needle in", "thread i", "n"},
		{"needlneed", "needl", "need"},
		{"a needle, a needle.", "a thread, a thread.", ""},
	} {
		chunk := Chunk{Data: []byte(c.data)}
		verdict := h.Handle(&chunk)
		out, held := string(chunk.Written()), ""
		if verdict == Hold {
			held = string(chunk.Data)
		} else {
			out += string(chunk.Data)
		}
		if out != c.out || held != c.held {
			t.Errorf("%q: sent %q and held %q, want %q and %q", c.data, out, held, c.out, c.held)
		}
	}
}

func TestReplaceRefusesWhatItCannotDo(t *testing.T) {
	long := strings.Repeat("x", MaxReplace+1)
	for _, c := range []struct{ old, new string }{{"", "x"}, {long, "x"}, {"x", long}} {
		if i, err := Replace(c.old, c.new); err == nil || i != nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("replacing %d bytes by %d: %v, %v", len(c.old), len(c.new), i, err)
		}
	}
	if _, err := Replace(long[1:], long[1:]); err != nil {
		t.Error(err)
	}
}

func TestReplaceDoesNotAllocate(t *testing.T) {
	h := replaceHandler(t, "needle", "thread")
	passesWithoutAllocation(t, h, []byte(strings.Repeat("hay ", 5000)))
	passesWithoutAllocation(t, h, []byte(strings.Repeat("needle ", 500)+"nee"))
}

func FuzzReplace(f *testing.F) {
	f.Add([]byte("concatenate the cat"), []byte("cat"), []byte("dog"), uint64(1))
	f.Add([]byte("aaabaaaabab"), []byte("aab"), []byte(""), uint64(2))
	f.Add([]byte{0, 0, 1, 0, 0}, []byte{0}, []byte{0, 0}, uint64(3))
	f.Fuzz(func(t *testing.T, stream, old, new []byte, seed uint64) {
		i, err := Replace(string(old), string(new))
		if err != nil {
			if len(old) > 0 && len(old) <= MaxReplace && len(new) <= MaxReplace {
				t.Fatal(err)
			}
			return
		}
		want := bytes.ReplaceAll(stream, old, new)
		got, last := drive(t, i.Open(testPair).Upstream, bytes.Clone(stream), random(seed))
		if !bytes.Equal(got, want) || last != Forward {
			t.Fatalf("%q with %q for %q became %q, want %q", stream, new, old, got, want)
		}
	})
}

func BenchmarkReplaceNothing(b *testing.B) {
	h := replaceHandler(b, "needle", "thread")
	data := bytes.Repeat([]byte("hay "), 16<<10)
	var c Chunk
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		c.Reset(data, false)
		h.Handle(&c)
	}
}
