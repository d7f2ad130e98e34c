package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// forever is longer than any test waits.
const forever = time.Hour

var ended = engine.PairInfo{
	ID:          7,
	Client:      netip.MustParseAddrPort("192.0.2.7:40000"),
	Destination: netip.MustParseAddrPort("198.51.100.1:443"),
	Connected:   netip.MustParseAddrPort("198.51.100.2:443"),
	Mode:        tproxy.TPROXY,
	Step:        tproxy.StepIP,
	Established: true,
	Since:       time.Date(2026, 1, 2, 15, 4, 5, 0, time.FixedZone("", 3600)),
	Duration:    1500 * time.Millisecond,
	Upstream:    engine.DirectionInfo{Bytes: 10, Acknowledged: 10, Messages: 2, Path: engine.PathDetached},
	Downstream:  engine.DirectionInfo{Bytes: 20, Acknowledged: 15, Messages: 1, Pauses: 3, PausedFor: 200 * time.Millisecond},
	Reason:      engine.ReasonReset,
	Err:         "connection reset by peer",
}

func TestAccessLine(t *testing.T) {
	line, err := json.Marshal(newAccessLine(ended))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-01-02T14:04:06.5Z","id":7,"client":"192.0.2.7:40000","destination":"198.51.100.1:443",` +
		`"connected":"198.51.100.2:443","mode":"tproxy","spoof":"ip","established":true,"duration_ms":1500,` +
		`"up":{"bytes":10,"acknowledged":10,"messages":2,"path":"detached","pauses":0,"paused_ms":0},` +
		`"down":{"bytes":20,"acknowledged":15,"messages":1,"path":"splice","pauses":3,"paused_ms":200},` +
		`"reason":"reset","error":"connection reset by peer"}`
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
}

func TestAccessLogWritesEveryPair(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	a, err := openAccessLog(path, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a.PairOpened(ended)
	for range 1000 {
		a.PairEnded(ended)
	}
	a.close(forever)
	got := lines(t, path)
	if len(got) != 1000 || a.dropped() != 0 {
		t.Errorf("%d lines, %d dropped", len(got), a.dropped())
	}
	for _, line := range got {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not JSON: %s", line)
		}
	}
}

// writes is a file that keeps apart what was written apart.
type writes struct{ all []string }

func (w *writes) Write(p []byte) (int, error) {
	w.all = append(w.all, string(p))
	return len(p), nil
}

func (w *writes) Close() error { return nil }

// TestAccessLogNeverTearsALine: during an upgrade two processes write to the same log.
func TestAccessLogNeverTearsALine(t *testing.T) {
	file := new(writes)
	a := newAccessLog("", file, slog.New(slog.DiscardHandler))
	long := ended
	long.Err = strings.Repeat("x", 3*accessBlock/2)
	for i := range 1000 {
		p := ended
		if i%100 == 0 {
			p = long
		}
		a.PairEnded(p)
	}
	a.close(forever)
	n := 0
	for _, text := range file.all {
		if !strings.HasSuffix(text, "\n") || len(text) > accessBlock && strings.Count(text, "\n") > 1 {
			t.Fatalf("%d bytes were written at once, ending in %q", len(text), text[max(0, len(text)-20):])
		}
		n += strings.Count(text, "\n")
	}
	if n != 1000 || a.dropped() != 0 {
		t.Errorf("%d lines, %d dropped", n, a.dropped())
	}
}

// blocked is a file that takes nothing until it is released.
type blocked struct {
	entered chan struct{}
	release chan struct{}
	bytes.Buffer
}

func (b *blocked) Write(p []byte) (int, error) {
	select {
	case b.entered <- struct{}{}:
	default:
	}
	<-b.release
	return b.Buffer.Write(p)
}

func (b *blocked) Close() error { return nil }

func TestAccessLogDropsAndCountsWhatDoesNotFit(t *testing.T) {
	file := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	a := newAccessLog("", file, slog.New(slog.DiscardHandler))
	a.PairEnded(ended)
	<-file.entered // the writer is stuck in the first line
	for range accessQueue + 5 {
		a.PairEnded(ended)
	}
	if a.dropped() != 5 {
		t.Errorf("%d dropped", a.dropped())
	}
	close(file.release)
	a.close(forever)
	if n := strings.Count(file.String(), "\n"); n != accessQueue+1 {
		t.Errorf("%d lines", n)
	}
}

func TestAccessLogGivesUpOnReaderThatDoesNotRead(t *testing.T) {
	file := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	a := newAccessLog("", file, slog.New(slog.DiscardHandler))
	a.PairEnded(ended)
	<-file.entered
	a.PairEnded(ended)
	a.close(time.Nanosecond)
	if a.dropped() != 1 {
		t.Errorf("%d dropped", a.dropped())
	}
	close(file.release)
	<-a.done
}

// failing is a file that cannot be written while err is set.
type failing struct {
	err error
	bytes.Buffer
}

func (f *failing) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Buffer.Write(p)
}

func (f *failing) Close() error { return errors.New("close failed") }

func TestAccessLogCountsLinesThatCannotBeWritten(t *testing.T) {
	var logged bytes.Buffer
	file := &failing{err: errors.New("disk full")}
	a := newAccessLog("", file, slog.New(slog.NewTextHandler(&logged, nil)))
	// The goroutine is ended first, so that the test can play its part.
	close(a.stop)
	<-a.done
	logged.Reset()
	for range 2 {
		for range 3 {
			a.write(ended)
		}
		a.flush()
	}
	if a.dropped() != 6 || strings.Count(logged.String(), "lines are lost") != 1 {
		t.Errorf("%d dropped, logged:\n%s", a.dropped(), &logged)
	}
	file.err = nil
	a.write(ended)
	a.flush()
	if n := strings.Count(file.String(), "\n"); n != 1 || a.dropped() != 6 {
		t.Errorf("%d lines, %d dropped", n, a.dropped())
	}
	file.err = errors.New("disk full again")
	a.write(ended)
	a.finish()
	if a.dropped() != 7 || strings.Count(logged.String(), "lines are lost") != 2 || !strings.Contains(logged.String(), "close failed") {
		t.Errorf("%d dropped, logged:\n%s", a.dropped(), &logged)
	}
}

func TestAccessLogReopens(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	var logged bytes.Buffer
	a, err := openAccessLog(path, nil, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	close(a.stop)
	<-a.done
	if a.file, err = openAppend(path); err != nil {
		t.Fatal(err)
	}
	a.out.Reset(a.file)

	a.write(ended)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	a.replace()
	a.write(ended)
	a.write(ended)
	a.flush()
	if old, now := len(lines(t, path+".1")), len(lines(t, path)); old != 1 || now != 2 {
		t.Errorf("%d lines in the old file, %d in the new one", old, now)
	}

	a.path = filepath.Join(dir, "none", "access.log")
	a.replace()
	a.write(ended)
	a.finish()
	if n := len(lines(t, path)); n != 3 || !strings.Contains(logged.String(), "old file stays in use") {
		t.Errorf("%d lines, logged:\n%s", n, &logged)
	}
}

func TestAccessLogOnStdoutStaysOpen(t *testing.T) {
	var out bytes.Buffer
	a, err := openAccessLog("-", &out, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a.PairEnded(ended)
	a.reopen()
	a.reopen()
	a.close(forever)
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("wrote %q", &out)
	}
}

func TestAccessLogThatCannotBeOpened(t *testing.T) {
	if _, err := openAccessLog(filepath.Join(t.TempDir(), "none", "x"), nil, nil); err == nil || !strings.HasPrefix(err.Error(), "access log: open ") {
		t.Error(err)
	}
}

func TestAccessLogCostsTheLoopsNoAllocation(t *testing.T) {
	a := newAccessLog("", keepOpen{io.Discard}, slog.New(slog.DiscardHandler))
	close(a.stop)
	<-a.done
	if n := testing.AllocsPerRun(2*accessQueue, func() { a.PairEnded(ended) }); n != 0 {
		t.Errorf("%v allocations per pair", n)
	}
}
