package intercept

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzLabel: each read gets its label, whatever is in either.
func FuzzLabel(f *testing.F) {
	f.Add([]byte("some bytes"), "[x]", uint64(1))
	f.Add([]byte("xx"), "x", uint64(2))
	f.Add([]byte{}, "\x00", uint64(3))
	f.Fuzz(func(t *testing.T, stream []byte, text string, seed uint64) {
		h := Label(text).Open(testPair).Upstream
		if h == nil {
			if text != "" {
				t.Fatalf("label %q has no handler", text)
			}
			return
		}
		var want []byte
		got, last := drive(t, HandlerFunc(func(c *Chunk) Verdict {
			if len(c.Data) > 0 {
				want = append(append(want, text...), c.Data...)
			}
			return h.Handle(c)
		}), bytes.Clone(stream), random(seed))
		if !bytes.Equal(got, want) || last != Forward {
			t.Fatalf("%q with label %q became %q, want %q", stream, text, got, want)
		}
	})
}

// FuzzRecord: what passes is in the file, and passes unchanged, also through a chain.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("some bytes"), uint64(1), true)
	f.Add([]byte{}, uint64(2), false)
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, chained bool) {
		dir, err := os.MkdirTemp("", "record")
		noError(t, err)
		defer os.RemoveAll(dir)
		r, err := Record(dir)
		noError(t, err)
		var i Interceptor = r
		if chained {
			i = Chain(OnRead(func(b []byte) []byte { return b }), r)
		}
		d := i.Open(testPair)
		got, last := drive(t, d.Upstream, bytes.Clone(stream), random(seed))
		noError(t, d.CloseHandlers())
		if !bytes.Equal(got, stream) || last != Forward {
			t.Fatalf("%q became %q", stream, got)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.up"))
		noError(t, err)
		if len(files) != 1 {
			t.Fatalf("recorded to %v", files)
		}
		recorded, err := os.ReadFile(files[0])
		if n, failed := r.Failed(); err != nil || n != 0 || !bytes.Equal(recorded, stream) {
			t.Fatalf("%q was recorded as %q: %v, %v", stream, recorded, err, failed)
		}
	})
}
