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
	// logRoom is how many bytes of log lines may wait for standard error: about a
	// thousand lines.
	logRoom = 256 << 10
	// logPatience is how long the end of the program waits for a reader that does not
	// read.
	logPatience = time.Second
)

// logQueue is standard error for everybody in the program. A pipe that nobody reads, or
// a terminal that was stopped, blocks write(2) for ever; with it would go the goroutine
// that handles signals, or an event loop. So Write only queues, and one goroutine writes.
//
// What does not fit into the queue is dropped, and a notice with the number of dropped
// lines takes its place. Once a line is dropped, all are until the writing goroutine has
// taken what waits: the notice stands exactly where the lines are missing.
type logQueue struct {
	lost    atomic.Uint64 // lines that were dropped or could not be written
	written chan struct{} // closed when the writing goroutine has ended
	wake    chan struct{} // holds a token when there is something to do

	mu      sync.Mutex
	waiting []byte
	dropped uint64 // lines, since the last notice
	closed  bool   // the writing goroutine ends when nothing waits
	notice  noticeFunc

	// Of the writing goroutine:
	file   lineWriter
	failed uint64 // lines that could not be written, since the last one that could
}

// noticeFunc writes a log line that says how many are missing.
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

// say makes the notice a line of the log's own format.
func (l *logQueue) say(notice noticeFunc) {
	l.mu.Lock()
	l.notice = notice
	l.mu.Unlock()
}

// metric counts what is lost.
func (l *logQueue) metric() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tprelay_log_dropped_lines_total",
		Help: "Lines for standard error that were dropped because it did not take them.",
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
	default: // it is about to look
	}
}

// run writes what waits until the queue is closed and empty.
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

// take gives what waits, with the notice for what was dropped behind it, and leaves
// spare to be filled.
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

// noticed is text with a notice behind it. Its caller holds mu.
func (l *logQueue) noticed(text []byte, lines uint64) []byte {
	b := bytes.NewBuffer(text)
	l.notice(b, lines)
	return b.Bytes()
}

// write writes lines, each by a call of its own: during an upgrade two processes share
// standard error, and a pipe keeps only small writes together.
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

// close writes what waits, but waits no longer than patience for that.
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
