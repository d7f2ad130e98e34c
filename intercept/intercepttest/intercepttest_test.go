package intercepttest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/intercept"
)

// handlers gives functions as handlers with state of their own.
func handlers(fresh func() intercept.HandlerFunc) func() intercept.Handler {
	return func() intercept.Handler { return fresh() }
}

func stateless(f intercept.HandlerFunc) func() intercept.Handler {
	return func() intercept.Handler { return f }
}

type closes struct {
	intercept.HandlerFunc
	err error
}

func (c closes) Close() error { return c.err }

// TestFaultsAreFound: each of these handlers breaks its contract in one way.
func TestFaultsAreFound(t *testing.T) {
	forward := func(*intercept.Chunk) intercept.Verdict { return intercept.Forward }
	for name, f := range map[string]struct {
		open func() intercept.Handler
		want string
	}{
		"sends a chunk that it has kept": {handlers(func() intercept.HandlerFunc {
			var kept []byte
			return func(c *intercept.Chunk) intercept.Verdict {
				c.Write(kept)
				if kept, c.Data = c.Data, nil; c.End {
					c.Write(kept)
				}
				return intercept.Forward
			}
		}), "kept Chunk.Data after it returned"},
		"writes to a chunk that it has kept": {handlers(func() intercept.HandlerFunc {
			var kept []byte
			return func(c *intercept.Chunk) intercept.Verdict {
				clear(kept)
				kept = c.Data
				return intercept.Forward
			}
		}), "written to a chunk after it returned"},
		"looks for a word in single reads": {stateless(func(c *intercept.Chunk) intercept.Verdict {
			c.Data = bytes.ReplaceAll(c.Data, []byte("cat"), []byte("dog"))
			return intercept.Forward
		}), "depends on how the input is cut"},
		"resets for a word in single reads": {stateless(func(c *intercept.Chunk) intercept.Verdict {
			if bytes.Contains(c.Data, []byte("cat")) {
				return intercept.Reset
			}
			return intercept.Forward
		}), "depends on how the input is cut"},
		"takes the end of the first read for the end of the message": {stateless(func(c *intercept.Chunk) intercept.Verdict {
			return intercept.Close
		}), "depends on how the input is cut"},
		"holds bytes for ever": {stateless(func(c *intercept.Chunk) intercept.Verdict {
			return intercept.Hold
		}), "Hold at the end of the stream"},
		"holds bytes for ever after a cut": {stateless(func(c *intercept.Chunk) intercept.Verdict {
			if c.End && !c.Cut {
				return intercept.Forward
			}
			return intercept.Hold
		}), "cut off: the handler returned Hold at the end of the stream"},
		"misses an end that comes alone": {handlers(func() intercept.HandlerFunc {
			var kept []byte
			return func(c *intercept.Chunk) intercept.Verdict {
				kept = append(kept, c.Data...)
				c.Data = nil
				if c.End && len(kept) > 0 && kept[len(kept)-1] == 't' {
					c.Write(kept)
				}
				if len(kept) > 1 {
					kept = nil
				}
				return intercept.Forward
			}
		}), "depends on how the input is cut"},
		"panics":              {stateless(func(c *intercept.Chunk) intercept.Verdict { panic(c.Data[:1][0]) }), "the handler panicked"},
		"is a nil function":   {stateless(nil), "the handler panicked"},
		"is nil":              {func() intercept.Handler { return nil }, "returned nil"},
		"has its own verdict": {stateless(func(*intercept.Chunk) intercept.Verdict { return 77 }), "77, which is no verdict"},
		"does not close": {func() intercept.Handler {
			return closes{forward, fmt.Errorf("disk full")}
		}, "closing the handler: disk full"},
	} {
		for _, input := range []string{"a cat", "a cat in a long text about a cat"} {
			_, _, err := run(f.open, []byte(input), nil)
			if err == nil || !strings.Contains(err.Error(), f.want) {
				t.Errorf("a handler that %s, %q: %v, want %q", name, input, err, f.want)
			}
		}
	}
}

func TestHeldBytesAreBounded(t *testing.T) {
	wait := stateless(func(c *intercept.Chunk) intercept.Verdict {
		if c.End {
			return intercept.Forward
		}
		return intercept.Hold
	})
	input := make([]byte, intercept.MaxHold)
	if got, last := Run(t, wait, input); !bytes.Equal(got, input) || last != intercept.Forward {
		t.Errorf("%d bytes, verdict %d", len(got), last)
	}
	if _, _, err := run(wait, append(input, 0), nil); err == nil || !strings.Contains(err.Error(), "holds back 65537 bytes") {
		t.Errorf("one byte too many: %v", err)
	}
	if got, _ := Run(t, wait, []byte("123456789"), MaxHeld(9)); string(got) != "123456789" {
		t.Errorf("got %q", got)
	}
	if _, _, err := run(wait, []byte("123456789"), []Option{MaxHeld(8)}); err == nil || !strings.Contains(err.Error(), "at most 8") {
		t.Errorf("one byte more than MaxHeld: %v", err)
	}
}

// TestVerdictsMeanWhatTheyDoInTheEngine: bytes that were written come first, and nothing follows
// Close and Reset.
func TestVerdictsMeanWhatTheyDoInTheEngine(t *testing.T) {
	script := func(verdicts ...intercept.Verdict) intercept.Handler {
		return intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
			v := intercept.Forward
			if len(verdicts) > 0 {
				v, verdicts = verdicts[0], verdicts[1:]
			}
			c.WriteString("<")
			return v
		})
	}
	for _, c := range []struct {
		verdicts []intercept.Verdict
		want     string
		last     intercept.Verdict
	}{
		{nil, "<ab<c<", intercept.Forward},
		{[]intercept.Verdict{intercept.Hold}, "<<abc<", intercept.Forward},
		{[]intercept.Verdict{intercept.Hold, intercept.Hold, intercept.Hold}, "<<<abc", intercept.Forward},
		{[]intercept.Verdict{intercept.Detach}, "<abc", intercept.Detach},
		{[]intercept.Verdict{intercept.Close}, "<ab", intercept.Close},
		{[]intercept.Verdict{intercept.Forward, intercept.Reset}, "<ab", intercept.Reset},
	} {
		got, last := Feed(t, script(c.verdicts...), "ab", "c")
		if string(got) != c.want || last != c.last {
			t.Errorf("%v: %q with %s, want %q with %s", c.verdicts, got, name(last), c.want, name(c.last))
		}
	}
}

func TestBytesBeforeAResetMayBeFewer(t *testing.T) {
	got, last := Run(t, handlers(func() intercept.HandlerFunc {
		seen := 0
		return func(c *intercept.Chunk) intercept.Verdict {
			if seen += len(c.Data); seen > 3 {
				return intercept.Reset
			}
			return intercept.Forward
		}
	}), []byte("abcdef"))
	if string(got) != "abc" || last != intercept.Reset {
		t.Errorf("%q with %s", got, name(last))
	}
}

// TestShortInputsAreCutInEveryWay: 2^(n-1) ways, none of them twice.
func TestShortInputsAreCutInEveryWay(t *testing.T) {
	for n := range maxExhaustive + 1 {
		ways := map[string]bool{}
		for _, reads := range (&config{}).segmentations(n) {
			sum := 0
			for _, r := range reads {
				sum += r
			}
			if sum != n {
				t.Errorf("%v are not %d bytes", reads, n)
			}
			ways[fmt.Sprint(reads)] = true
		}
		if want := 1 << max(0, n-1); len(ways) != want {
			t.Errorf("%d bytes are cut in %d ways, want %d", n, len(ways), want)
		}
	}
}

func TestLongInputsAreCutTheSameWayForOneSeed(t *testing.T) {
	ways := func(n int, seed uint64) string {
		return fmt.Sprint((&config{seed: seed, random: 20}).segmentations(n))
	}
	for _, n := range []int{9, 600, 5000, 3 << 20} {
		first, second := ways(n, 1), ways(n, 1)
		if first != second {
			t.Errorf("%d bytes are cut differently the second time", n)
		}
		if first == ways(n, 2) {
			t.Errorf("%d bytes are cut the same for two seeds", n)
		}
		all := (&config{seed: 1, random: 20}).segmentations(n)
		if most := 22 + maxTwoReads; len(all) > most {
			t.Errorf("%d bytes are cut in %d ways: at most %d", n, len(all), most)
		}
		for _, reads := range all {
			sum := 0
			for _, r := range reads {
				if sum += r; r < 1 || r > maxRead {
					t.Fatalf("a read of %d bytes", r)
				}
			}
			if sum != n {
				t.Errorf("reads of %d bytes together, want %d", sum, n)
			}
		}
	}
}
