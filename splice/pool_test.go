package splice_test

import (
	"maps"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/splice"
)

// get lends a pipe that must be there.
func get(t testing.TB, pool *splice.Pool) splice.ID {
	t.Helper()
	id, ok := pool.Get()
	if !ok {
		t.Fatal("no pipe to be had")
	}
	return id
}

func expect(t *testing.T, pool *splice.Pool, open, idle int, misses uint64) {
	t.Helper()
	if pool.Open() != open || pool.Idle() != idle || pool.Misses() != misses {
		t.Errorf("%d pipes open, %d idle, %d misses; want %d, %d, %d",
			pool.Open(), pool.Idle(), pool.Misses(), open, idle, misses)
	}
}

func TestPoolOpensNothingUnasked(t *testing.T) {
	before := leak.Descriptors()
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 100, Keep: 100})
	defer pool.Close()
	expect(t, pool, 0, 0, 0)
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
}

func TestGetLendsWhatWasPut(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 4, Keep: 4})
	defer pool.Close()
	first := get(t, pool)
	before := leak.Descriptors()
	pool.Put(first)
	expect(t, pool, 1, 1, 0)
	if again := get(t, pool); again != first {
		t.Errorf("lent pipe %d, then %d", first, again)
	}
	expect(t, pool, 1, 0, 0)
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
	pool.Put(first)
}

// Bytes of a connection that has ended must never reach the next one.
func TestPipeWithBytesIsNeverPooled(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 4, Keep: 4})
	defer pool.Close()
	id := get(t, pool)
	load(t, pool.Pipe(id), []byte("secret"))
	pool.Put(id)
	expect(t, pool, 0, 0, 0)

	id = get(t, pool)
	defer pool.Put(id)
	p := pool.Pipe(id)
	if p.Pending() != 0 {
		t.Errorf("%d bytes in a fresh pipe", p.Pending())
	}
	if n, err := p.Read(make([]byte, 10)); err != unix.EAGAIN {
		t.Errorf("a fresh pipe gave %d bytes, error %v", n, err)
	}
}

func TestPoolKeepsOnlySoMany(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 8, Keep: 3})
	defer pool.Close()
	before := len(leak.Descriptors())
	var lent []splice.ID
	for range 8 {
		lent = append(lent, get(t, pool))
	}
	expect(t, pool, 8, 0, 0)
	if n := len(leak.Descriptors()) - before; n != 16 {
		t.Errorf("8 pipes took %d descriptors", n)
	}
	for _, id := range lent {
		pool.Put(id)
	}
	expect(t, pool, 3, 3, 0)
	if n := len(leak.Descriptors()) - before; n != 6 {
		t.Errorf("3 pipes that were kept take %d descriptors", n)
	}
}

func TestGetBeyondTheLimitIsAMiss(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 2, Keep: 2})
	defer pool.Close()
	first, second := get(t, pool), get(t, pool)
	for range 3 {
		if id, ok := pool.Get(); ok {
			t.Fatalf("lent pipe %d beyond the limit", id)
		}
	}
	expect(t, pool, 2, 0, 3)
	pool.Put(first)
	pool.Put(get(t, pool))
	pool.Put(second)
	expect(t, pool, 2, 2, 3)
}

func TestLimitOfNoneLendsNone(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 0, Keep: 10})
	defer pool.Close()
	if _, ok := pool.Get(); ok {
		t.Error("lent a pipe")
	}
	expect(t, pool, 0, 0, 1)
}

func TestClosedPipesLeaveTheirSlots(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 3, Keep: 0})
	defer pool.Close()
	for range 100 {
		lent := []splice.ID{get(t, pool), get(t, pool), get(t, pool)}
		for _, id := range lent {
			if id < 0 || id > 2 {
				t.Fatalf("pipe %d of a pool of three", id)
			}
			pool.Put(id)
		}
	}
	expect(t, pool, 0, 0, 0)
}

func TestCloseLeavesNoDescriptors(t *testing.T) {
	before := leak.Descriptors()
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 10, Keep: 10})
	var lent []splice.ID
	for range 10 {
		lent = append(lent, get(t, pool))
	}
	for _, id := range lent {
		pool.Put(id)
	}
	pool.Close()
	expect(t, pool, 0, 0, 0)
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
	pool.Put(get(t, pool)) // a closed pool is an empty one
	pool.Close()
}

func TestSizeIsWhatTheKernelGave(t *testing.T) {
	page := os.Getpagesize()
	for asked, want := range map[int]int{1: page, page + 1: 2 * page, 3 * page: 4 * page, 16 * page: 16 * page, 256 << 10: 256 << 10} {
		if got := borrow(t, asked).Size(); got != want {
			t.Errorf("asked for %d bytes, got %d, want %d", asked, got, want)
		}
	}
	// What the kernel refuses to anybody leaves the pipe as it was made.
	if got := borrow(t, 3<<30).Size(); got != 16*page {
		t.Errorf("asked for 3 GiB, got %d bytes, want %d", got, 16*page)
	}
}

func TestGetWithoutDescriptorsIsAMiss(t *testing.T) {
	pool := splice.NewPool(splice.Limits{Size: pipeSize, Pipes: 10, Keep: 10})
	defer pool.Close()
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	unix.Close(free)
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free) + 1, Max: limit.Max}))
	id, ok := pool.Get()
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if ok {
		t.Errorf("lent pipe %d with one descriptor free", id)
	}
	expect(t, pool, 0, 0, 1)
	pool.Put(get(t, pool))
}
