package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress says what goes on: on a terminal in one line that changes, elsewhere in
// one line per phase.
type progress struct {
	to       io.Writer
	terminal bool
	phase    string
	seconds  int
}

func newProgress(to io.Writer) *progress {
	p := &progress{to: to}
	if f, ok := to.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

// begin begins a phase that will take so many seconds.
func (p *progress) begin(phase string, seconds int) {
	p.phase, p.seconds = phase, seconds
	if p.terminal {
		p.line(phase)
	} else {
		fmt.Fprintf(p.to, "%s, %d s\n", phase, seconds)
	}
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

// watch keeps the line fresh until ctx ends; the returned group waits for that.
func (p *progress) watch(ctx context.Context, live func() string) *sync.WaitGroup {
	var wg sync.WaitGroup
	if !p.terminal {
		return &wg
	}
	began := time.Now()
	wg.Go(func() {
		ticker := time.NewTicker(250 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				text := fmt.Sprintf("%s: %d of %d s", p.phase, min(int(time.Since(began).Seconds()), p.seconds), p.seconds)
				if now := live(); now != "" {
					text += ", " + now
				}
				p.line(text)
			}
		}
	})
	return &wg
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
