package main

import (
	"bytes"
	"io"
)

// lineWriter writes whole lines to a file that may take only a part of them: a disk that
// is full takes what fits into the last block. The rest of a cut line is lost, and the
// next write begins with a newline, so that no other line is lost with it.
type lineWriter struct {
	out io.Writer
	cut bool // the file ends in the middle of a line
}

// write writes lines, each with its newline, in one call. whole is the number of lines
// that are in the file from their beginning to their end.
func (w *lineWriter) write(lines []byte) (whole int, err error) {
	completes := 0
	if w.cut {
		lines = append([]byte{'\n'}, lines...)
		completes = 1
	}
	n, err := w.out.Write(lines)
	if n == 0 {
		return 0, err
	}
	w.cut = lines[n-1] != '\n'
	return bytes.Count(lines[:n], []byte{'\n'}) - completes, err
}
