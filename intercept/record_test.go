package intercept

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func recorder(t *testing.T) (*Recorder, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := Record(dir)
	noError(t, err)
	return r, dir
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	noError(t, err)
	found := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		noError(t, err)
		found[filepath.Ext(e.Name())] += string(content)
	}
	return found
}

func TestRecordKeepsBothDirections(t *testing.T) {
	r, dir := recorder(t)
	d := r.Open(testPair)
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("files before the first byte: %v", got)
	}
	request, answer := strings.Repeat("request ", 10000), strings.Repeat("answer ", 10000)
	got, last := drive(t, d.Upstream, []byte(request), random(1))
	if string(got) != request || last != Forward {
		t.Error("upstream bytes were changed")
	}
	got, last = drive(t, d.Downstream, []byte(answer), random(2))
	if string(got) != answer || last != Forward {
		t.Error("downstream bytes were changed")
	}
	noError(t, d.CloseHandlers())
	found := files(t, dir)
	if found[".up"] != request || found[".down"] != answer {
		t.Error("a recording differs from what was sent")
	}
	entries, err := os.ReadDir(dir)
	noError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		noError(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	if n, err := r.Failed(); n != 0 || err != nil {
		t.Errorf("failed: %d, %v", n, err)
	}
}

func TestRecordOfSilentDirectionIsAnEmptyFile(t *testing.T) {
	r, dir := recorder(t)
	d := r.Open(testPair)
	drive(t, d.Upstream, nil, whole)
	if got, ok := files(t, dir)[".up"]; !ok || got != "" {
		t.Errorf("recording: %q, %v", got, ok)
	}
}

func TestRecordIsClosedWithItsPair(t *testing.T) {
	r, _ := recorder(t)
	d := r.Open(testPair)
	up := d.Upstream.(*recording)
	c := Chunk{Data: []byte("cut off")}
	up.Handle(&c)
	file := up.file
	noError(t, d.CloseHandlers())
	noError(t, up.Close())
	if err := file.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file was open: %v", err)
	}
	if up.Handle(&c) != Detach {
		t.Error("a closed recording does not let go")
	}
}

func TestRecordThatCannotBeCreatedLetsThePairGoOn(t *testing.T) {
	r, dir := recorder(t)
	d := r.Open(testPair)
	noError(t, os.Remove(dir))
	got, last := drive(t, d.Upstream, []byte("goes on"), single)
	if string(got) != "goes on" || last != Detach {
		t.Errorf("got %q with verdict %d", got, last)
	}
	if n, err := r.Failed(); n != 1 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("failed: %d, %v", n, err)
	}
}

func TestRecordThatCannotBeWrittenLetsThePairGoOn(t *testing.T) {
	r, _ := recorder(t)
	d := r.Open(testPair)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	noError(t, err)
	up := d.Upstream.(*recording)
	up.file = full
	got, last := drive(t, up, []byte("goes on"), whole)
	if string(got) != "goes on" || last != Detach {
		t.Errorf("got %q with verdict %d", got, last)
	}
	noError(t, d.CloseHandlers())
	if n, err := r.Failed(); n != 1 || err == nil {
		t.Errorf("failed: %d, %v", n, err)
	}
}

func TestRecordCountsFilesThatCloseWithAnError(t *testing.T) {
	r, dir := recorder(t)
	file, err := os.Create(filepath.Join(dir, "x"))
	noError(t, err)
	noError(t, file.Close())
	up := &recording{owner: r, file: file}
	if up.Close() == nil {
		t.Error("no error")
	}
	if n, _ := r.Failed(); n != 1 {
		t.Errorf("failed: %d", n)
	}
}

func TestRecordNeverWritesToExistingFile(t *testing.T) {
	r, dir := recorder(t)
	path := filepath.Join(dir, "there.up")
	noError(t, os.WriteFile(path, []byte("old"), 0o600))
	h := &recording{owner: r, path: path}
	if h.Handle(&Chunk{Data: []byte("new")}) != Detach {
		t.Error("it was recorded")
	}
	if got := files(t, dir)[".up"]; got != "old" {
		t.Errorf("the file holds %q", got)
	}
}

func TestRecordNames(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 4, 5, 6000, time.FixedZone("", 3600))
	for _, c := range []struct{ client, want string }{
		{"192.0.2.7:40000", "20260102T140405.000006Z_17_192.0.2.7-40000_198.51.100.1-443"},
		{"[2001:db8::1]:1", "20260102T140405.000006Z_17_2001-db8--1-1_198.51.100.1-443"},
		{"[fe80::1%../x]:1", "20260102T140405.000006Z_17_fe80--1-..-x-1_198.51.100.1-443"},
		{"", "20260102T140405.000006Z_17_unknown_198.51.100.1-443"},
	} {
		p := testPair
		p.Client = netip.AddrPort{}
		if c.client != "" {
			p.Client = netip.MustParseAddrPort(c.client)
		}
		if got := recordName(at, p); got != c.want {
			t.Errorf("client %q: %s, want %s", c.client, got, c.want)
		}
	}
}

func TestRecordRefusesWhatIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	noError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct{ dir, want string }{
		{"", "no directory given"},
		{filepath.Join(dir, "none"), "create it first"},
		{file, "not a directory"},
		{filepath.Join(file, "below"), "not a directory"},
		{"/proc/self/fdinfo", "cannot create files there"},
	} {
		r, err := Record(c.dir)
		if c.dir == "/proc/self/fdinfo" && err == nil {
			continue // this file system lets root try
		}
		if r != nil || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", c.dir, err, c.want)
		}
	}
}

func TestRecordDoesNotAllocatePerChunk(t *testing.T) {
	r, _ := recorder(t)
	d := r.Open(testPair)
	passesWithoutAllocation(t, d.Upstream, bytes.Repeat([]byte("x"), 100))
	noError(t, d.CloseHandlers())
}

var _ io.Closer = (*recording)(nil)
