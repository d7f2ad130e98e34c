package main

import (
	"bytes"
	"io"
)

// lineWriter writes lines to a file that may take only a part of them: a full disk takes what
// fits into the last block. The rest of a cut line is lost. The next write then begins with a
// newline, so that the next line is not appended to the cut one.
type lineWriter struct {
	out io.Writer
	cut bool // the file ends in the middle of a line
}

// write writes lines, each with its newline, in one call. whole is the number of lines that
// were written completely.
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
