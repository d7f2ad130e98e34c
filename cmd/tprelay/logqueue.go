package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// logRoom is the number of bytes that may wait for standard error: about a thousand
	// lines.
	logRoom = 256 << 10
	// logPatience is how long the program waits at its end for a reader that does not read.
	logPatience = time.Second
)

// logQueue is standard error for the whole program. A pipe without a reader, or a stopped
// terminal, blocks write(2) for ever, and would block the goroutine that handles signals, or
// an event loop. So Write only queues, and one goroutine writes.
//
// Lines that do not fit into the queue are dropped, and a notice with their number takes
// their place. After a line was dropped, all lines are dropped until the writing goroutine
// has emptied the queue: the notice then stands exactly where lines are missing.
type logQueue struct {
	lost    atomic.Uint64 // lines that were dropped or could not be written
	written chan struct{} // closed when the writing goroutine has ended
	wake    chan struct{} // holds a token when there is something to do

	mu      sync.Mutex
	waiting []byte
	dropped uint64 // lines since the last notice
	closed  bool   // the writing goroutine ends when the queue is empty
	notice  noticeFunc

	// Used by the writing goroutine only:
	file   lineWriter
	failed uint64 // lines that could not be written since the last successful write
}

// noticeFunc writes a log line with the number of missing lines.
type noticeFunc func(w io.Writer, lines uint64)

func newLogQueue(out io.Writer) *logQueue {
	l := &logQueue{
		written: make(chan struct{}),
		wake:    make(chan struct{}, 1),
		notice:  plainNotice,
		file:    lineWriter{out: out},
	}
	go l.run()
	return l
}

func plainNotice(w io.Writer, lines uint64) {
	fmt.Fprintf(w, "tprelay: %d log lines were dropped\n", lines)
}

// say sets the function that writes notices, so that they have the format of the log.
func (l *logQueue) say(notice noticeFunc) {
	l.mu.Lock()
	l.notice = notice
	l.mu.Unlock()
}

// metric returns a counter of lost lines.
func (l *logQueue) metric() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tprelay_log_dropped_lines_total",
		Help: "Log lines that were dropped because standard error did not take them in time.",
	}, func() float64 { return float64(l.lost.Load()) })
}

// Write queues whole lines. It never waits and never fails.
func (l *logQueue) Write(p []byte) (int, error) {
	l.mu.Lock()
	if l.dropped > 0 || len(l.waiting)+len(p) > logRoom {
		n := uint64(bytes.Count(p, []byte{'\n'}))
		l.dropped += n
		l.lost.Add(n)
	} else {
		l.waiting = append(l.waiting, p...)
	}
	l.mu.Unlock()
	l.poke()
	return len(p), nil
}

func (l *logQueue) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // the token of an earlier call is still there
	}
}

// run writes queued lines until the queue is closed and empty.
func (l *logQueue) run() {
	defer close(l.written)
	var text []byte
	for closed := false; !closed; {
		<-l.wake
		for {
			if text, closed = l.take(text); len(text) == 0 {
				break
			}
			l.write(text)
		}
	}
}

// take returns the queued lines, followed by a notice if lines were dropped. The queue
// continues in spare.
func (l *logQueue) take(spare []byte) (text []byte, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, l.waiting = l.waiting, spare[:0]
	if l.dropped > 0 {
		text = l.noticed(text, l.dropped)
		l.dropped = 0
	}
	return text, l.closed
}

// noticed returns text followed by a notice. The caller holds mu.
func (l *logQueue) noticed(text []byte, lines uint64) []byte {
	b := bytes.NewBuffer(text)
	l.notice(b, lines)
	return b.Bytes()
}

// write writes each line in a call of its own: during an upgrade two processes share standard
// error, and a pipe keeps only small writes together.
func (l *logQueue) write(lines []byte) {
	if l.failed > 0 {
		l.mu.Lock()
		notice := l.noticed(nil, l.failed)
		l.mu.Unlock()
		if _, err := l.file.write(notice); err == nil {
			l.failed = 0
		}
	}
	for line := range bytes.Lines(lines) {
		if _, err := l.file.write(line); err != nil {
			l.failed++
			l.lost.Add(1)
		}
	}
}

// close writes the queued lines and waits for that, no longer than patience.
func (l *logQueue) close(patience time.Duration) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.poke()
	select {
	case <-l.written:
	case <-time.After(patience):
	}
}
