package splice_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/splice"
)

const (
	limitTask = "beyond the soft limit"
	nobody    = 65534
)

// The soft limit is counted per user, and does not hold for a user that may override it
// (CAP_SYS_RESOURCE). So a process of an ordinary user does the work.
func TestPipesBeyondTheSoftLimit(t *testing.T) {
	if pages := softLimit(t); pages <= 0 || pages > 32<<10 {
		t.Skipf("/proc/sys/fs/pipe-user-pages-soft is %d", pages)
	}
	child := exec.Command("/proc/self/exe") // the binary's directory may be closed to others
	child.Env = append(os.Environ(), taskVariable+"="+limitTask)
	if os.Getuid() == 0 {
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

func softLimit(t testing.TB) int {
	text, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	check(t, err)
	pages, err := strconv.Atoi(strings.TrimSpace(string(text)))
	check(t, err)
	return pages
}

// runLimitTask is what the child does; it returns the exit status.
func runLimitTask() (status int) {
	var t child
	defer func() {
		if recover() != nil {
			status = 1
		}
		t.finish()
	}()
	normal := 16 * os.Getpagesize()
	count := softLimit(&t)/16 + 200
	pool := splice.NewPool(splice.Limits{Size: normal, Pipes: count, Keep: 0})
	check(&t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(2*count + 100), Max: uint64(2*count + 100)}))
	var full, small int
	var last splice.ID
	var lent []splice.ID
	for range count {
		id, ok := pool.Get()
		if !ok {
			break // beyond the hard limit, or out of descriptors: a miss, not a failure
		}
		lent = append(lent, id)
		switch size := pool.Pipe(id).Size(); {
		case size == normal:
			full++
		case size > 0 && size < normal:
			small++
			last = id
		default:
			t.Fatalf("a pipe of %d bytes", size)
		}
	}
	if small == 0 {
		t.Fatalf("%d pipes, %d misses, and none of them small", full, pool.Misses())
	}

	p := pool.Pipe(last)
	source, client := connection(&t)
	sink, server := connection(&t)
	data := pattern(100_000)
	client.send(data)
	for moved := 0; moved < len(data); {
		source.ready(unix.POLLIN)
		fill(&t, p, source.fd, 1<<20, splice.Moved)
		moved += drain(&t, p, sink.fd, splice.Moved)
	}
	if string(server.receive(len(data))) != string(data) {
		t.Fatalf("the bytes differ")
	}
	fmt.Printf("%d pipes of %d bytes, %d smaller ones; the last, of %d bytes, moved %d\n", full, normal, small, p.Size(), len(data))

	// A pool of big pipes gets what there is, too.
	big := splice.NewPool(splice.Limits{Size: 1 << 20, Pipes: 1, Keep: 1})
	if id, ok := big.Get(); ok && big.Pipe(id).Size() >= normal {
		t.Fatalf("grew a pipe to %d bytes beyond the limit", big.Pipe(id).Size())
	}

	// A pool with a least size gets no pipe, and asks the kernel again later.
	picky := splice.NewPool(splice.Limits{Size: 1 << 20, Least: normal, Pipes: 1, Keep: 1})
	before := leak.Descriptors()
	if id, ok := picky.Get(); ok {
		t.Fatalf("got a pipe of %d bytes", picky.Pipe(id).Size())
	}
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Fatalf("descriptors before: %v, now: %v", before, now)
	}
	for _, id := range lent {
		pool.Put(id)
	}
	for tries := 1; ; tries++ {
		if id, ok := picky.Get(); ok {
			fmt.Printf("with the others gone, a pipe of %d bytes at attempt %d\n", picky.Pipe(id).Size(), tries)
			picky.Put(id)
			picky.Close()
			break
		}
		if tries > 1000 {
			t.Fatalf("none to be had when the others were gone")
		}
	}
	return status
}

// child is the testing.TB of a process that is no test.
type child struct {
	testing.TB
	cleanups []func()
}

func (c *child) Helper()           {}
func (c *child) Cleanup(fn func()) { c.cleanups = append(c.cleanups, fn) }
func (c *child) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	panic(c)
}

func (c *child) Fatalf(format string, args ...any) { c.Fatal(fmt.Sprintf(format, args...)) }

func (c *child) finish() {
	for _, fn := range c.cleanups {
		fn()
	}
}
