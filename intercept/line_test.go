package intercept

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// through makes the upstream handler of a chain of fresh handlers.
func through(handlers ...Handler) Handler {
	var list []Interceptor
	for _, h := range handlers {
		list = append(list, &opens{Decision: Decision{Upstream: h}})
	}
	return Chain(list...).Open(testPair).Upstream
}

func replacing(t testing.TB, texts ...string) Handler {
	var handlers []Handler
	for i := 0; i < len(texts); i += 2 {
		handlers = append(handlers, replaceHandler(t, texts[i], texts[i+1]))
	}
	return through(handlers...)
}

// scripted gives one verdict per call, and the last one for ever.
func scripted(verdicts ...Verdict) Handler {
	return HandlerFunc(func(*Chunk) Verdict {
		v := verdicts[0]
		if len(verdicts) > 1 {
			verdicts = verdicts[1:]
		}
		return v
	})
}

// holdAll holds until the end, and says then what it held.
func holdAll(name string) Handler {
	return HandlerFunc(func(c *Chunk) Verdict {
		if c.End {
			fmt.Fprintf(c, "%s%d:", name, len(c.Data))
		}
		return Hold
	})
}

func TestChainEndsEachStageOnce(t *testing.T) {
	for seed := range uint64(50) {
		var ends [3]int
		var handlers []Handler
		for i := range ends {
			handlers = append(handlers, HandlerFunc(func(c *Chunk) Verdict {
				if len(c.Data) == 0 && !c.End {
					t.Error("called with nothing")
				}
				if c.End {
					ends[i]++
				}
				return Hold
			}))
		}
		drive(t, through(handlers...), []byte("some bytes"), random(seed))
		if ends != [3]int{1, 1, 1} {
			t.Fatalf("seed %d: ends %v", seed, ends)
		}
	}
}

func TestChainSkipsDetachedStages(t *testing.T) {
	calls := 0
	once := HandlerFunc(func(c *Chunk) Verdict {
		calls++
		c.WriteString("<")
		return Detach
	})
	h := through(once, label("."), scripted(Hold, Hold, Detach))
	got, last := drive(t, h, []byte("abcdef"), single)
	if string(got) != ".<a.b.c.d.e.f" || last != Forward || calls != 1 {
		t.Errorf("got %q, verdict %d, %d calls", got, last, calls)
	}
}

func TestChainDetachesWhenAllHave(t *testing.T) {
	h := through(scripted(Forward, Detach), scripted(Hold, Hold, Detach), scripted(Detach))
	got, last := drive(t, h, []byte("abcdef"), single)
	if string(got) != "abcdef" || last != Detach {
		t.Errorf("got %q, verdict %d", got, last)
	}
	l := h.(*line)
	for i, s := range l.stages {
		if !s.gone || s.held != nil {
			t.Errorf("stage %d: gone %v, holds %v", i, s.gone, s.held)
		}
	}
}

func TestChainCloseLetsLaterStagesFlush(t *testing.T) {
	h := through(scripted(Forward, Forward, Close), holdAll("b"), label("!"))
	got, last := drive(t, h, []byte("abcdef"), single)
	if string(got) != "!b3:abc" || last != Close {
		t.Errorf("got %q, verdict %d", got, last)
	}
	h = through(scripted(Close), scripted(Close))
	if got, last := drive(t, h, []byte("abc"), whole); string(got) != "abc" || last != Close {
		t.Errorf("got %q, verdict %d", got, last)
	}
	h = through(scripted(Close), scripted(Reset))
	if _, last := drive(t, h, []byte("abc"), whole); last != Reset {
		t.Errorf("verdict %d", last)
	}
}

func TestChainResetsAtOnce(t *testing.T) {
	behind := 0
	h := through(label("!"), scripted(Forward, Reset), HandlerFunc(func(*Chunk) Verdict { behind++; return Forward }))
	got, last := drive(t, h, []byte("abc"), single)
	if string(got) != "!a" || last != Reset || behind != 1 {
		t.Errorf("got %q, verdict %d, %d calls behind", got, last, behind)
	}
	unknown := through(label("!"), scripted(Reset+1))
	if _, last := drive(t, unknown, []byte("abc"), single); last != Reset {
		t.Errorf("an unknown verdict became %d", last)
	}
}

func TestChainBoundsWhatEachStageHolds(t *testing.T) {
	fits := bytes.Repeat([]byte("x"), MaxHold)
	half := func(left int) int { return min(left, MaxHold/2) }
	got, last := drive(t, through(holdAll("a"), holdAll("b")), fits, half)
	if len(got) != MaxHold+len("a65536:")+len("b65543:") || last != Forward {
		t.Errorf("%d bytes, verdict %d", len(got), last)
	}
	if _, last := drive(t, through(label("!"), holdAll("b")), append(fits, "x"...), half); last != Reset {
		t.Errorf("a stage held more than MaxHold: verdict %d", last)
	}
}

func TestChainStageMayHoldItsOwnBytes(t *testing.T) {
	own := []byte("own")
	fresh := func() Handler {
		first := true
		return through(HandlerFunc(func(c *Chunk) Verdict {
			if !first || len(c.Data) == 0 {
				return Forward
			}
			first = false
			c.Data = own
			return Hold
		}), HandlerFunc(func(c *Chunk) Verdict {
			return Forward
		}))
	}
	if got, _ := drive(t, fresh(), []byte("abc"), single); string(got) != "ownbc" {
		t.Errorf("got %q", got)
	}
	nothing := through(HandlerFunc(func(c *Chunk) Verdict {
		c.Data = nil
		return Hold
	}), label("!"))
	if got, _ := drive(t, nothing, []byte("abc"), single); len(got) != 0 || nothing.(*line).stages[0].held != nil {
		t.Errorf("got %q", got)
	}
}

func TestIdleChainHoldsNoMemory(t *testing.T) {
	h := replacing(t, "cat", "dog", "dog", "bird").(*line)
	for _, data := range []string{"a cat", "a ca", "nary", "do", "ne"} {
		c := Chunk{Data: []byte(data)}
		h.Handle(&c)
		for i := range h.work {
			if h.work[i].out != nil || h.lent[i] != nil || h.work[i].Data != nil {
				t.Errorf("after %q: work chunk %d keeps memory", data, i)
			}
		}
	}
	for i, s := range h.stages {
		if s.held != nil {
			t.Errorf("stage %d keeps %q", i, s.held.B)
		}
	}
}

func TestChainGivesBackHeldMemoryWhenThePairEnds(t *testing.T) {
	h := replacing(t, "cat", "dog", "dog", "bird").(*line)
	h.Handle(&Chunk{Data: []byte("ca")})
	if h.stages[0].held == nil {
		t.Fatal("nothing is held")
	}
	noError(t, h.Close())
	noError(t, h.Close())
	if h.stages[0].held != nil {
		t.Error("held memory is kept")
	}
}

func TestChainDoesNotAllocate(t *testing.T) {
	hay := []byte(strings.Repeat("hay ", 5000))
	passesWithoutAllocation(t, replacing(t, "cat", "dog", "dog", "bird"), hay)
	passesWithoutAllocation(t, through(label("a"), label("b"), label("c")), hay)
	passesWithoutAllocation(t, replacing(t, "cat", "dog", "dog", "bird"), []byte("cat, cat, ca"))
}

func FuzzChain(f *testing.F) {
	f.Add([]byte("concatenated cats"), "cat", "dog", "dog", "bird", uint64(1))
	f.Add([]byte("aaaaabab"), "ab", "a", "aa", "b", uint64(2))
	f.Fuzz(func(t *testing.T, stream []byte, old1, new1, old2, new2 string, seed uint64) {
		for _, s := range []string{old1, old2} {
			if s == "" || len(s) > MaxReplace {
				return
			}
		}
		if len(new1) > 64 || len(new2) > 64 {
			return
		}
		want := bytes.ReplaceAll(bytes.ReplaceAll(stream, []byte(old1), []byte(new1)), []byte(old2), []byte(new2))
		got, last := drive(t, replacing(t, old1, new1, old2, new2), bytes.Clone(stream), random(seed))
		if !bytes.Equal(got, want) || last != Forward {
			t.Fatalf("%q became %q, want %q", stream, got, want)
		}
	})
}
