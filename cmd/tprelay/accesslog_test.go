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
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/cli"
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
	SpoofLevel:  tproxy.LevelIP,
	Established: true,
	Since:       time.Date(2026, 1, 2, 15, 4, 5, 0, time.FixedZone("", 3600)),
	Duration:    1500 * time.Millisecond,
	Upstream:    engine.DirectionInfo{Bytes: 10, Acknowledged: 10, Messages: 2, Path: engine.PathDetached},
	Downstream:  engine.DirectionInfo{Bytes: 20, Acknowledged: 15, Messages: 1, Pauses: 3, PausedFor: 200 * time.Millisecond},
	Reason:      engine.ReasonReset,
	Err:         unix.ECONNRESET,
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
	for range 1000 {
		a.pairEnded(ended)
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
	a := newAccessLog("", file, false, slog.New(slog.DiscardHandler))
	long := ended
	long.Err = errors.New(strings.Repeat("x", 3*accessBlock/2))
	for i := range 1000 {
		p := ended
		if i%100 == 0 {
			p = long
		}
		a.pairEnded(p)
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
	a := newAccessLog("", file, false, slog.New(slog.DiscardHandler))
	a.pairEnded(ended)
	<-file.entered // the writer is stuck in the first line
	for range accessQueue + 5 {
		a.pairEnded(ended)
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
	a := newAccessLog("", file, false, slog.New(slog.DiscardHandler))
	a.pairEnded(ended)
	<-file.entered
	a.pairEnded(ended)
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

// sayings are what was logged since the test last took it.
type sayings struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sayings) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sayings) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// TestAccessLogSaysThatLinesAreLost: at once, every now and then while it lasts, and when it
// is over. The clock is synctest's, which takes no time.
func TestAccessLogSaysThatLinesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged sayings
		said := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := logged.take(); strings.Count(got, "\n") > 1 || !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("logged %q, want %q", got, want)
			}
		}
		file := &failing{err: errors.New("disk full")}
		a := newAccessLog("", file, false, slog.New(slog.NewTextHandler(&logged, nil)))
		end := func() {
			a.pairEnded(ended)
			synctest.Wait()
		}
		end()
		said(`msg="access log: lines are lost" lines=1 err="disk full"`)
		end()
		end()
		said("") // not for each
		time.Sleep(accessReport)
		said(`msg="access log: lines are lost" lines=3`)
		time.Sleep(10 * accessReport)
		said("") // nothing is lost, and nothing was written
		end()
		time.Sleep(accessReport)
		said(`msg="access log: lines are lost" lines=4`)
		file.err = nil
		end()
		time.Sleep(accessReport)
		said(`msg="access log: lines are written again" lost=4`)
		end()
		time.Sleep(accessReport)
		said("")
		file.err = errors.New("disk full again")
		end()
		said(`msg="access log: lines are lost" lines=1 err="disk full again"`)
		a.close(forever)
		said("close failed")
		if n := strings.Count(file.String(), "\n"); n != 2 || a.dropped() != 5 {
			t.Errorf("%d lines, %d dropped", n, a.dropped())
		}
	})
}

func TestAccessLogThatIsNotReadSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		file := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
		a := newAccessLog("", file, false, slog.New(slog.NewTextHandler(&logged, nil)))
		a.pairEnded(ended)
		<-file.entered
		for range accessQueue + 3 {
			a.pairEnded(ended)
		}
		synctest.Wait()
		if got := logged.String(); !strings.Contains(got, "lines are lost") || !strings.Contains(got, "takes lines too slowly") {
			t.Errorf("logged %q", got)
		}
		close(file.release)
		a.close(forever)
	})
}

// TestAccessLogLineThatAFullDiskCutsHurtsNoOther: the process may write no more than one
// line and a half, until it may again.
func TestAccessLogLineThatAFullDiskCutsHurtsNoOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	p := start(t, echo(t), "--access-log", path, "--admin", "127.0.0.1:0")
	url := p.line("admin")["url"].(string)
	address := p.line("listening")["address"]
	until := func(size int64) int64 {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if info, err := os.Stat(path); err != nil {
				t.Fatal(err)
			} else if info.Size() > size {
				return info.Size()
			} else if time.Now().After(end) {
				t.Fatalf("the log never grew beyond %d bytes", size)
			}
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	pid := p.cmd.Process.Pid
	transfer(t, dial(t, address), []byte("first"))
	size := until(0)
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(size + size/2), Max: limit.Max}, nil); err != nil {
		t.Fatal(err)
	}
	transfer(t, dial(t, address), []byte("second"))
	if why := p.line("access log: lines are lost")["err"].(string); !strings.Contains(why, "file too large") {
		t.Error(why)
	}
	if text := get(t, url+"metrics"); !strings.Contains(text, "\ntprelay_access_log_dropped_lines_total 1\n") {
		t.Errorf("no number of lost lines in\n%s", text)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	transfer(t, dial(t, address), []byte("third"))
	until(size + size/2)
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != cli.OK {
		t.Errorf("exit status %d", status)
	}
	got := lines(t, path)
	if len(got) != 3 || !json.Valid([]byte(got[0])) || json.Valid([]byte(got[1])) || !json.Valid([]byte(got[2])) {
		t.Errorf("want a line, a cut one and a line:\n%s", strings.Join(got, "\n"))
	}
}

func TestAccessLogCompletesALineThatAnotherProcessLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	for _, c := range []struct{ before, want string }{{"", ""}, {"whole\n", "whole\n"}, {"cu", "cu\n"}} {
		if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := openAccessLog(path, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		a.pairEnded(ended)
		a.close(forever)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if rest, ok := strings.CutPrefix(string(text), c.want); !ok || !json.Valid([]byte(rest)) {
			t.Errorf("%q became %q", c.before, text)
		}
	}
}

func TestAccessLogFIFOWithoutAReaderIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := openAccessLog(path, nil, slog.New(slog.DiscardHandler))
		opened <- err
	}()
	select {
	case err := <-opened:
		if want := "access log: " + path + " is a FIFO without a reader; start the reader first"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	case <-time.After(patience):
		t.Fatal("it waits for the reader, and no signal is heard meanwhile")
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
	if a.file, _, err = openAppend(path); err != nil {
		t.Fatal(err)
	}
	a.out = lineWriter{out: a.file}

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
	a.pairEnded(ended)
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
	a := newAccessLog("", keepOpen{io.Discard}, false, slog.New(slog.DiscardHandler))
	close(a.stop)
	<-a.done
	if n := testing.AllocsPerRun(2*accessQueue, func() { a.pairEnded(ended) }); n != 0 {
		t.Errorf("%v allocations per pair", n)
	}
}
