package leak

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsLeftIsFound(t *testing.T) {
	for want, hold := range map[string]func(t *testing.T) (release func()){
		"/dev/null": func(t *testing.T) func() {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		},
		"pipe:": func(t *testing.T) func() {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			return func() { unix.Close(p[0]); unix.Close(p[1]) }
		},
		"goroutine ": func(*testing.T) func() {
			done := make(chan struct{})
			go func() { <-done }()
			return func() { close(done) }
		},
		"sleep (": func(t *testing.T) func() {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { cmd.Process.Kill(); cmd.Wait() }
		},
		"in namespace net:": elsewhere,
	} {
		t.Run(strings.Trim(want, " (:/"), func(t *testing.T) {
			before := Snapshot()
			release := hold(t)
			news := before.left(0)
			if !slices.ContainsFunc(news, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("found %q, want one with %q", news, want)
			}
			release()
			if news := before.left(patience); len(news) > 0 {
				t.Errorf("released, and still found:\n%s", strings.Join(news, "\n"))
			}
		})
	}
}

// elsewhere holds a thread in a new network namespace.
func elsewhere(t *testing.T) func() {
	entered, done := make(chan error), make(chan struct{})
	var enter func()
	enter = func() {
		runtime.LockOSThread() // and never unlock it: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			go enter() // on another thread, because the first one would not end
			<-done
			return
		}
		entered <- unix.Unshare(unix.CLONE_NEWNET)
		<-done
	}
	go enter()
	if err := <-entered; err != nil {
		close(done)
		if errors.Is(err, unix.EPERM) {
			t.Skip("network namespaces need root")
		}
		t.Fatal(err)
	}
	return func() { close(done) }
}

// recorder is a test that notes what it is told.
type recorder struct {
	cleanup func()
	failed  bool
}

func (*recorder) Helper()                 {}
func (r *recorder) Cleanup(f func())      { r.cleanup = f }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestCheckWaitsForWhatGoesAwayByItself(t *testing.T) {
	r := new(recorder)
	Check(r)
	done := make(chan struct{})
	go func() { <-done }()
	go close(done)
	r.cleanup()
	if r.failed {
		t.Error("it failed")
	}
}

func TestCheckFailsTheTestThatLeavesSomething(t *testing.T) {
	r := new(recorder)
	check(r, 0)
	done := make(chan struct{})
	defer close(done)
	go func() { <-done }()
	r.cleanup()
	if !r.failed {
		t.Error("it passed")
	}
}

// tests are those of a package.
type tests func() int

func (f tests) Run() int { return f() }

func TestMainFailsWhenTestsFailOrLeaveSomething(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	for name, c := range map[string]struct {
		run  tests
		want int
	}{
		"tests that pass":            {func() int { return 0 }, 0},
		"tests that fail":            {func() int { return 7 }, 7},
		"tests that leave something": {func() int { go func() { <-done }(); return 0 }, 1},
	} {
		if status := run(c.run, 0); status != c.want {
			t.Errorf("%s: status %d, want %d", name, status, c.want)
		}
	}
}
