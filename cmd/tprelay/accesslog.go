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
	// accessQueue is how many ended pairs may wait to be written.
	accessQueue = 4096
	// accessBlock is how much is written at once: what a pipe takes without mixing it
	// with what others write (PIPE_BUF). A line is about 500 bytes long.
	accessBlock = 4096
	// accessPatience is how long closing waits for a reader that does not read.
	accessPatience = 5 * time.Second
	// accessReport is how often the log says that lines are being lost.
	accessReport = 10 * time.Second
)

// accessLog is an engine.Observer that writes a line for each pair that ended.
// The loops only put pairs into a queue; one goroutine writes. What does not fit
// into the queue, or cannot be written, is dropped and counted. A second goroutine
// says so, as the first one may be stuck in a write.
type accessLog struct {
	path    string // empty for one that cannot be reopened
	log     *slog.Logger
	queue   chan engine.PairInfo
	hup     chan struct{}
	stop    chan struct{}
	done    chan struct{}
	failed  atomic.Uint64 // lines dropped
	written atomic.Uint64 // lines written
	cause   atomic.Pointer[error]
	tooSlow error
	losing  chan struct{} // holds a token once a line was dropped

	// Of the writing goroutine:
	file  io.WriteCloser
	out   lineWriter
	block []byte // whole lines
}

// openAccessLog begins a log in the file path, or on stdout if it is "-".
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

// newAccessLog begins a log in file, which ends in the middle of a line if cut is set.
func newAccessLog(path string, file io.WriteCloser, cut bool, log *slog.Logger) *accessLog {
	a := &accessLog{
		path:    path,
		log:     log,
		queue:   make(chan engine.PairInfo, accessQueue),
		hup:     make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		tooSlow: errors.New("what it is written to takes lines too slowly"),
		losing:  make(chan struct{}, 1),
		file:    file,
		out:     lineWriter{out: file, cut: cut},
	}
	go a.run()
	go a.report()
	return a
}

// openAppend opens a log. Appending keeps lines whole when something else
// truncates or also writes the file. cut says that the file ends in the middle of a
// line, as a process that was killed or a full disk leaves it.
func openAppend(path string) (file *os.File, cut bool, err error) {
	// Opening a FIFO that nobody reads would wait for the reader.
	file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ENXIO) {
		return nil, false, fmt.Errorf("%s: a FIFO that nobody reads; start its reader first", path)
	} else if err != nil {
		return nil, false, err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return file, false, nil
	}
	reader, err := os.Open(path)
	if err != nil {
		return file, false, nil // it may be written, not read
	}
	defer reader.Close()
	last := make([]byte, 1)
	n, _ := reader.ReadAt(last, info.Size()-1)
	return file, n == 1 && last[0] != '\n', nil
}

// metric counts what is lost.
func (a *accessLog) metric() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tprelay_access_log_dropped_lines_total",
		Help: "Lines of the access log that were dropped because they could not be written, or not in time.",
	}, func() float64 { return float64(a.dropped()) })
}

// PairOpened does nothing: a pair gets its line when it ends.
func (a *accessLog) PairOpened(engine.PairInfo) {}

// PairEnded queues the pair. It never waits. A pair that was handed over has not ended: it gets
// its one line, with all its bytes, from the process where it does.
func (a *accessLog) PairEnded(p engine.PairInfo) {
	if p.Reason == engine.ReasonHandedOver {
		return
	}
	select {
	case a.queue <- p:
	default:
		a.lose(1, &a.tooSlow)
	}
}

// lose counts lines that are lost. It never waits.
func (a *accessLog) lose(lines int, why *error) {
	a.cause.Store(why)
	a.failed.Add(uint64(lines))
	select {
	case a.losing <- struct{}{}:
	default: // report knows
	}
}

// report says that lines are lost: when it begins, every now and then while it goes on,
// and when it is over, which is when lines are written and none is lost.
func (a *accessLog) report() {
	var told uint64 // lines of which it was said that they are lost
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
	line, err := json.Marshal(newAccessLine(p))
	if err != nil {
		a.lose(1, &err)
		return
	}
	// A line that does not fit would be written in two parts, and after an
	// upgrade another process may write to the file in between.
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

// replace opens the file anew; if that fails the old one stays in use.
func (a *accessLog) replace() {
	if a.path == "" {
		return
	}
	file, cut, err := openAppend(a.path)
	if err != nil {
		a.log.Error("access log: cannot be reopened; the old file stays in use", "err", err)
		return
	}
	a.flush()
	if err := a.file.Close(); err != nil {
		a.log.Error("access log", "err", err)
	}
	a.file, a.out = file, lineWriter{out: file, cut: cut}
	a.log.Info("access log reopened", "file", a.path)
}

// keepOpen is a writer that others still need.
type keepOpen struct{ io.Writer }

// Close does nothing.
func (keepOpen) Close() error { return nil }
