package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Recorder writes both directions of every pair to files. See [Record].
type Recorder struct {
	dir string

	mu     sync.Mutex
	failed int
	last   error
}

// Record makes a Recorder that writes to files in dir: the bytes from the client to one that ends
// in .up, those to it to one that ends in .down. Their common name has the time when the pair was
// opened (UTC), its ID, its client and its destination:
//
//	20260102T150405.000000Z_17_192.0.2.7-40000_198.51.100.1-443.up
//
// The files are created with mode 0600 when the first byte or the end of their direction comes. A
// pair whose outgoing connection was never established leaves none. It is an error if dir does not
// exist, or if files cannot be created there.
//
// Every byte is in the file before it is sent on: there is no buffer that a crash could lose. In
// exchange the loop makes a write call per read and waits for it, and all pairs of the loop with
// it. That is a copy into the page cache as long as the disk keeps up, and longer when it does not.
// Recording takes up to two descriptors per pair.
//
// When a file cannot be created or written, the pair goes on without its recording: the file ends
// there, the handler detaches, and Failed counts the file.
func Record(dir string) (*Recorder, error) {
	info, err := os.Stat(dir)
	switch {
	case dir == "":
		return nil, errors.New("record: no directory given")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("record %s: no such directory; create it first", dir)
	case err != nil:
		return nil, fmt.Errorf("record: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("record %s: not a directory", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("record %s: cannot create files there: %w", dir, err)
	}
	return &Recorder{dir: dir}, nil
}

// Open gives the pair a recording for each direction. It creates no file yet.
func (r *Recorder) Open(p Pair) Decision {
	name := filepath.Join(r.dir, recordName(time.Now(), p))
	return Decision{
		Upstream:   &recording{owner: r, path: name + ".up"},
		Downstream: &recording{owner: r, path: name + ".down"},
	}
}

// Failed says how many files are missing or incomplete, and the error of the last one, or nil if
// there are none. It may be called from any goroutine.
func (r *Recorder) Failed() (files int, last error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed, r.last
}

func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	r.last = err
}

// recording is one direction of one pair.
type recording struct {
	owner *Recorder
	path  string
	file  *os.File // nil before the first byte, and when done
	done  bool     // the file is complete, or has failed
}

// Handle writes the chunk to the file.
func (r *recording) Handle(c *Chunk) Verdict {
	if r.done {
		return Detach
	}
	if err := r.write(c.Data); err != nil {
		r.giveUp(err)
		return Detach
	}
	if c.End {
		r.Close()
	}
	return Forward
}

func (r *recording) write(data []byte) error {
	if r.file == nil {
		// O_EXCL: never follow a link that another user has put there, never add to an older
		// recording.
		file, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		r.file = file
	}
	if len(data) == 0 {
		return nil
	}
	_, err := r.file.Write(data)
	return err
}

func (r *recording) giveUp(err error) {
	r.done = true
	if r.file != nil {
		r.file.Close() // the error that counts is err
		r.file = nil
	}
	r.owner.fail(fmt.Errorf("record: %w", err))
}

// Close ends the file. A second call does nothing.
func (r *recording) Close() error {
	r.done = true
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	if err != nil {
		r.owner.fail(fmt.Errorf("record: %w", err))
	}
	return err
}

// recordName is the common part of the names of a pair's two files.
func recordName(at time.Time, p Pair) string {
	return strings.Join([]string{
		at.UTC().Format("20060102T150405.000000Z"),
		strconv.FormatUint(p.ID, 10),
		fileName(p.Client),
		fileName(p.Destination),
	}, "_")
}

// fileName writes an address so that it needs no quoting in a shell and cannot
// leave its directory, whatever an IPv6 zone holds.
func fileName(a netip.AddrPort) string {
	if !a.IsValid() {
		return "unknown"
	}
	safe := strings.Map(func(c rune) rune {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '.':
			return c
		}
		return '-'
	}, a.Addr().String())
	return safe + "-" + strconv.Itoa(int(a.Port()))
}
