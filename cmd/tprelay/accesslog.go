package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
)

const (
	// accessQueue is the number of ended pairs that may wait to be written.
	accessQueue = 4096
	// accessBlock is the largest write in bytes: PIPE_BUF, the most that a pipe keeps
	// together when several processes write to it. A line has about 500 bytes.
	accessBlock = 4096
	// accessPatience is how long close waits for a file or reader that takes nothing.
	accessPatience = 5 * time.Second
	// accessReport is the time between two log messages about lost lines.
	accessReport = 10 * time.Second
)

// accessLog writes a line for each pair that ended.
// The loops only put pairs into a queue, and one goroutine writes them. Lines that do not
// fit into the queue, or cannot be written, are dropped and counted. A second goroutine
// logs the loss, because the first may be blocked in a write.
type accessLog struct {
	path    string // empty if the log cannot be reopened
	log     *slog.Logger
	queue   chan engine.PairInfo
	hup     chan struct{}
	stop    chan struct{}
	done    chan struct{}
	failed  atomic.Uint64 // lines dropped
	written atomic.Uint64 // lines written
	cause   atomic.Pointer[error]
	tooSlow error
	losing  chan struct{} // holds a token after a line was dropped

	// Used by the writing goroutine only:
	file  io.WriteCloser
	out   lineWriter
	block []byte // whole lines
}

// openAccessLog opens a log in the file path, or on stdout if path is "-".
func openAccessLog(path string, stdout io.Writer, log *slog.Logger) (*accessLog, error) {
	if path == "-" {
		return newAccessLog("", keepOpen{stdout}, false, log), nil
	}
	file, cut, err := openAppend(path)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return newAccessLog(path, file, cut, log), nil
}

// newAccessLog returns a log that writes to file. cut: the file ends in the middle of a line.
func newAccessLog(path string, file io.WriteCloser, cut bool, log *slog.Logger) *accessLog {
	a := &accessLog{
		path:    path,
		log:     log,
		queue:   make(chan engine.PairInfo, accessQueue),
		hup:     make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		tooSlow: errors.New("the file or its reader takes lines too slowly"),
		losing:  make(chan struct{}, 1),
		file:    file,
		out:     lineWriter{out: file, cut: cut},
	}
	go a.run()
	go a.report()
	return a
}

// openAppend opens a log file. O_APPEND keeps lines whole when another process truncates
// the file or writes to it. cut: the file ends in the middle of a line, which a killed
// process or a full disk leaves behind.
func openAppend(path string) (file *os.File, cut bool, err error) {
	// Without O_NONBLOCK, opening a FIFO without a reader would block.
	file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ENXIO) {
		return nil, false, fmt.Errorf("%s is a FIFO without a reader; start the reader first", path)
	} else if err != nil {
		return nil, false, err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return file, false, nil
	}
	reader, err := os.Open(path)
	if err != nil {
		return file, false, nil // the file may be writable and not readable
	}
	defer reader.Close()
	last := make([]byte, 1)
	n, _ := reader.ReadAt(last, info.Size()-1)
	return file, n == 1 && last[0] != '\n', nil
}

// metric returns a counter of lost lines.
func (a *accessLog) metric() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tprelay_access_log_dropped_lines_total",
		Help: "Access log lines that were dropped because they could not be written in time.",
	}, func() float64 { return float64(a.dropped()) })
}

// pairEnded queues the pair. It never waits. A pair that was handed over gets no line here: the
// process in which it ends writes its only line, with all its bytes.
func (a *accessLog) pairEnded(p engine.PairInfo) {
	if p.Reason == engine.ReasonHandedOver {
		return
	}
	select {
	case a.queue <- p:
	default:
		a.lose(1, &a.tooSlow)
	}
}

// lose counts lost lines and wakes report. It never waits.
func (a *accessLog) lose(lines int, why *error) {
	a.cause.Store(why)
	a.failed.Add(uint64(lines))
	select {
	case a.losing <- struct{}{}:
	default: // report has not yet seen the last token
	}
}

// report logs that lines are lost: when the loss begins, every accessReport while it lasts,
// and when it is over, that is, when lines are written and none is lost.
func (a *accessLog) report() {
	var told uint64 // lost lines that were logged
	for {
		select {
		case <-a.losing:
		case <-a.stop:
			return
		}
		for before := told; a.failed.Load() > before; {
			lost, written := a.failed.Load(), a.written.Load()
			if lost > told {
				a.log.Error("access log: lines are lost", "lines", lost-before, "err", *a.cause.Load())
				told = lost
			}
			select {
			case <-time.After(accessReport):
			case <-a.stop:
				return
			}
			if a.failed.Load() == lost && a.written.Load() > written {
				a.log.Warn("access log: lines are written again", "lost", lost-before)
				break
			}
		}
	}
}

// reopen makes the writing goroutine reopen the file, after it was renamed. It does not wait.
func (a *accessLog) reopen() {
	select {
	case a.hup <- struct{}{}:
	default: // a reopening is already requested
	}
}

// dropped returns the number of lost lines.
func (a *accessLog) dropped() uint64 { return a.failed.Load() }

// close writes the queued lines and closes the file. It waits no longer than patience.
// The engine must have ended.
func (a *accessLog) close(patience time.Duration) {
	close(a.stop)
	select {
	case <-a.done:
	case <-time.After(patience):
		a.failed.Add(uint64(len(a.queue)))
		a.log.Error("access log: the last lines could not be written in time and are lost")
	}
}

// run writes queued lines, and flushes them when the queue is empty.
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
		a.log.Error("access log: close failed", "err", err)
	}
}

func (a *accessLog) write(p engine.PairInfo) {
	line, err := json.Marshal(newAccessLine(p))
	if err != nil {
		a.lose(1, &err)
		return
	}
	// A line must not be written in two parts: during an upgrade another process may write
	// to the file in between.
	if line = append(line, '\n'); len(a.block)+len(line) > accessBlock {
		a.flush()
	}
	a.block = append(a.block, line...)
}

func (a *accessLog) flush() {
	if len(a.block) == 0 {
		return
	}
	lines := bytes.Count(a.block, []byte{'\n'})
	whole, err := a.out.write(a.block)
	a.block = a.block[:0]
	a.written.Add(uint64(whole))
	if err != nil {
		a.lose(lines-whole, &err)
	}
}

// replace reopens the file. If that fails, the old file stays in use.
func (a *accessLog) replace() {
	if a.path == "" {
		return
	}
	file, cut, err := openAppend(a.path)
	if err != nil {
		a.log.Error("access log: reopening failed; the old file stays in use", "err", err)
		return
	}
	a.flush()
	if err := a.file.Close(); err != nil {
		a.log.Error("access log: close failed", "err", err)
	}
	a.file, a.out = file, lineWriter{out: file, cut: cut}
	a.log.Info("access log reopened", "file", a.path)
}

// keepOpen wraps a writer that must stay open.
type keepOpen struct{ io.Writer }

// Close does nothing.
func (keepOpen) Close() error { return nil }
