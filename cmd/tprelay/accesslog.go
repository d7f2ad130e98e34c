package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/tprelay/tprelay/engine"
)

const (
	// accessQueue is how many ended pairs may wait to be written.
	accessQueue = 4096
	// accessBlock is how much is written at once: what a pipe takes without mixing it
	// with what others write (PIPE_BUF). A line is about 500 bytes long.
	accessBlock = 4096
	// accessPatience is how long closing waits for a reader that does not read.
	accessPatience = 5 * time.Second
)

// accessLog is an engine.Observer that writes a line for each pair that ended.
// The loops only put pairs into a queue; one goroutine writes. What does not fit
// into the queue, or cannot be written, is dropped and counted.
type accessLog struct {
	path   string // empty for one that cannot be reopened
	log    *slog.Logger
	queue  chan engine.PairInfo
	hup    chan struct{}
	stop   chan struct{}
	done   chan struct{}
	failed atomic.Uint64 // lines dropped

	// Of the writing goroutine:
	file    io.WriteCloser
	out     *bufio.Writer
	waiting uint64 // lines in out
	broken  bool   // the last write failed
}

// openAccessLog begins a log in the file path, or on stdout if it is "-".
func openAccessLog(path string, stdout io.Writer, log *slog.Logger) (*accessLog, error) {
	if path == "-" {
		return newAccessLog("", keepOpen{stdout}, log), nil
	}
	file, err := openAppend(path)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return newAccessLog(path, file, log), nil
}

func newAccessLog(path string, file io.WriteCloser, log *slog.Logger) *accessLog {
	a := &accessLog{
		path:  path,
		log:   log,
		queue: make(chan engine.PairInfo, accessQueue),
		hup:   make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
		file:  file,
		out:   bufio.NewWriterSize(file, accessBlock),
	}
	go a.run()
	return a
}

// openAppend opens a log. Appending keeps lines whole when something else
// truncates or also writes the file.
func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
}

// PairOpened does nothing: a pair gets its line when it ends.
func (a *accessLog) PairOpened(engine.PairInfo) {}

// PairEnded queues the pair. It never waits.
func (a *accessLog) PairEnded(p engine.PairInfo) {
	select {
	case a.queue <- p:
	default:
		a.failed.Add(1)
	}
}

// reopen has the file opened anew, for it was renamed. It does not wait for that.
func (a *accessLog) reopen() {
	select {
	case a.hup <- struct{}{}:
	default: // one is under way
	}
}

// dropped is the number of pairs without a line.
func (a *accessLog) dropped() uint64 { return a.failed.Load() }

// close writes what is queued and ends the log, but waits no longer than patience.
// The engine must have ended.
func (a *accessLog) close(patience time.Duration) {
	close(a.stop)
	select {
	case <-a.done:
	case <-time.After(patience):
		a.failed.Add(uint64(len(a.queue)))
		a.log.Error("access log: cannot be written; giving up")
	}
}

// run writes lines, and flushes them whenever no more are waiting.
func (a *accessLog) run() {
	defer close(a.done)
	for {
		select {
		case p := <-a.queue:
			a.write(p)
			continue
		default:
			a.flush()
		}
		select {
		case p := <-a.queue:
			a.write(p)
		case <-a.hup:
			a.replace()
		case <-a.stop:
			a.finish()
			return
		}
	}
}

func (a *accessLog) finish() {
	for {
		select {
		case p := <-a.queue:
			a.write(p)
			continue
		default:
		}
		break
	}
	a.flush()
	if err := a.file.Close(); err != nil {
		a.log.Error("access log", "err", err)
	}
}

func (a *accessLog) write(p engine.PairInfo) {
	a.waiting++
	line, err := json.Marshal(newAccessLine(p))
	if err == nil {
		// A line that does not fit would be written in two parts, and after an
		// upgrade another process may write to the file in between.
		if line = append(line, '\n'); len(line) > a.out.Available() {
			if err = a.out.Flush(); err == nil {
				a.waiting = 1
			}
		}
		if err == nil {
			_, err = a.out.Write(line)
		}
	}
	a.settle(err)
}

func (a *accessLog) flush() {
	if a.out.Buffered() == 0 {
		a.waiting = 0
		return
	}
	err := a.out.Flush()
	a.settle(err)
	if err == nil {
		a.waiting, a.broken = 0, false
	}
}

// settle counts the lines that an error has cost, and logs the first of a row.
func (a *accessLog) settle(err error) {
	if err == nil {
		return
	}
	a.failed.Add(a.waiting)
	a.waiting = 0
	a.out.Reset(a.file) // it would repeat the error for ever
	if !a.broken {
		a.log.Error("access log: lines are lost", "err", err)
	}
	a.broken = true
}

// replace opens the file anew; if that fails the old one stays in use.
func (a *accessLog) replace() {
	if a.path == "" {
		return
	}
	file, err := openAppend(a.path)
	if err != nil {
		a.log.Error("access log: cannot be reopened; the old file stays in use", "err", err)
		return
	}
	a.flush()
	if err := a.file.Close(); err != nil {
		a.log.Error("access log", "err", err)
	}
	a.file, a.broken = file, false
	a.out.Reset(file)
	a.log.Info("access log reopened", "file", a.path)
}

// keepOpen is a writer that others still need.
type keepOpen struct{ io.Writer }

// Close does nothing.
func (keepOpen) Close() error { return nil }
