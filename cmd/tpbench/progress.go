package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// progress says what goes on: on a terminal in one line that changes, elsewhere in
// one line per phase.
type progress struct {
	to       io.Writer
	terminal bool
}

func newProgress(to io.Writer) *progress {
	p := &progress{to: to}
	if f, ok := to.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

// step says what is done now, where every phase is short: on a terminal the line
// changes, elsewhere there is one more.
func (p *progress) step(text string) {
	if p.terminal {
		p.line(text)
	} else {
		fmt.Fprintln(p.to, text)
	}
}

// clear takes the line away.
func (p *progress) clear() {
	if p.terminal {
		p.line("")
	}
}

func (p *progress) line(text string) {
	const eraseLine = "\r\x1b[K"
	fmt.Fprint(p.to, eraseLine+text)
}
