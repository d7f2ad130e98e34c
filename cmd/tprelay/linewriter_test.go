package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzLineWriter: every line is whole, or is counted as not written and hurts no other.
func FuzzLineWriter(f *testing.F) {
	f.Add([]byte("abc"), 2)
	f.Fuzz(func(t *testing.T, text []byte, every int) {
		// The file takes a part of some writes.
		file := &partial{every: every}
		w := lineWriter{out: file}
		whole := 0
		var want []string
		for n, b := range text {
			line, err := json.Marshal([]int{n, int(b)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.write(append(line, '\n'))
			if (got == 1) != (err == nil) {
				t.Fatalf("%d whole lines, %v", got, err)
			}
			if whole += got; got == 1 {
				want = append(want, string(line))
			}
		}
		var have []string
		for line := range strings.Lines(file.String()) {
			if json.Valid([]byte(line)) {
				have = append(have, strings.TrimSpace(line))
			}
		}
		if strings.Join(have, " ") != strings.Join(want, " ") {
			t.Fatalf("whole lines %q, want %q in %q", have, want, &file.Buffer)
		}
	})
}

// partial is a file that takes only half of every so many writes, as a disk that gets
// full.
type partial struct {
	bytes.Buffer
	every, n int
}

func (p *partial) Write(b []byte) (int, error) {
	if p.n++; p.every > 0 && p.n%p.every == 0 {
		n, _ := p.Buffer.Write(b[:len(b)/2])
		return n, unix.ENOSPC
	}
	return p.Buffer.Write(b)
}
