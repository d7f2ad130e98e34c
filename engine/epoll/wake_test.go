package epoll_test

import (
	"errors"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/internal/leak"
)

func TestWakeFromAnotherGoroutine(t *testing.T) {
	p := poller(t, 8)
	var waker sync.WaitGroup
	waker.Go(func() {
		if err := p.Wake(); err != nil {
			t.Error(err)
		}
	})
	until(t, p, "wake", epoll.Event.Wake)
	waker.Wait()
	silent(t, p)
}

func TestManyWakesAreOneEvent(t *testing.T) {
	p := poller(t, 8)
	for range 1000 {
		check(t, p.Wake())
	}
	events, err := p.Wait(patience)
	check(t, err)
	if len(events) != 1 || !events[0].Wake() {
		t.Errorf("events %+v", events)
	}
	silent(t, p)
}

func TestEveryWakeAfterWaitIsTold(t *testing.T) {
	p := poller(t, 8)
	for range 1000 {
		check(t, p.Wake())
		until(t, p, "wake", epoll.Event.Wake)
		silent(t, p)
	}
}

// The mailbox of a loop rests on this: what is put in before Wake is found after
// the wake event, however many put things in.
func TestNoWakeIsLost(t *testing.T) {
	p := poller(t, 8)
	const wakers, each = 4, 5000
	var posted atomic.Int64
	var all sync.WaitGroup
	for range wakers {
		all.Go(func() {
			for range each {
				posted.Add(1)
				if err := p.Wake(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for seen := int64(0); seen < wakers*each; {
		until(t, p, "wake", epoll.Event.Wake)
		seen = posted.Load()
	}
	all.Wait()
}

func TestWakeComesBesideOtherEvents(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{Key: 9}))
	far.send("x")
	check(t, p.Wake())
	var woken, readable bool
	for !woken || !readable {
		ev := until(t, p, "anything", func(epoll.Event) bool { return true })
		woken = woken || ev.Wake()
		readable = readable || ev.Token().Key == 9 && ev.Readable()
		if !woken || !readable {
			check(t, p.Wake()) // until drops the rest of a batch
			far.send("x")
		}
	}
}

func TestWaitEndsWithItsTime(t *testing.T) {
	p := poller(t, 8)
	for _, p.HoldP = range []bool{false, true} {
		for _, timeout := range []int{0, 1, 5, 30} {
			if events, err := p.Wait(timeout); len(events) != 0 || err != nil {
				t.Errorf("timeout %d: %+v, %v", timeout, events, err)
			}
		}
	}
}

// TestEventAfterALongWaitIsTold: also one that comes when the poller has given up its processor.
func TestEventAfterALongWaitIsTold(t *testing.T) {
	p := poller(t, 8)
	p.HoldP = true
	for range 2 {
		later := time.AfterFunc(60*time.Millisecond, func() { _ = p.Wake() })
		until(t, p, "wake", epoll.Event.Wake)
		later.Stop()
	}
}

// A signal ends a wait that keeps its processor: no events, no error, and nothing is lost.
func TestSignalDuringWaitIsNoError(t *testing.T) {
	p := poller(t, 8)
	p.HoldP = true
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := unix.Gettid()
	var returned atomic.Bool
	var nuisance sync.WaitGroup
	nuisance.Go(func() {
		for !returned.Load() {
			_ = unix.Tgkill(unix.Getpid(), self, unix.SIGURG) // what the Go scheduler sends
		}
	})
	empty := 0
	for empty < 100 {
		events, err := p.Wait(-1)
		if err != nil || len(events) != 0 {
			t.Errorf("%+v, %v", events, err)
			break
		}
		empty++
	}
	returned.Store(true)
	nuisance.Wait()
	check(t, p.Wake())
	until(t, p, "wake", epoll.Event.Wake)
}

func TestCloseLeavesNoDescriptors(t *testing.T) {
	before := leak.Descriptors()
	p, err := epoll.New(8)
	check(t, err)
	check(t, p.Close())
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
	if err := p.Wake(); !errors.Is(err, unix.EBADF) {
		t.Errorf("Wake of a closed poller: %v", err)
	}
	if _, err := p.Wait(0); !errors.Is(err, unix.EBADF) {
		t.Errorf("Wait of a closed poller: %v", err)
	}
}

func TestNewWithoutDescriptorsFailsAndLeavesNone(t *testing.T) {
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	unix.Close(free)
	before := leak.Descriptors()
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	for spare, want := range []string{"epoll_create: too many open files", "eventfd: too many open files"} {
		check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + spare), Max: limit.Max}))
		_, err := epoll.New(8)
		check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		if !errors.Is(err, unix.EMFILE) || err.Error() != want {
			t.Errorf("%d descriptors free: %v, want %s", spare, err, want)
		}
	}
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
}

// TestWaitsThatAreNotToldLetOthersRun: the Go scheduler, which does not know of them, takes the
// only processor from them all the same, for the collector and for other goroutines.
func TestWaitsThatAreNotToldLetOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, wait := range map[string]func(*epoll.Poller) error{
		"short": func(p *epoll.Poller) error {
			_, err := p.Wait(1)
			return err
		},
		"kept": func(p *epoll.Poller) error {
			p.HoldP = true
			_, err := p.Wait(50)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := poller(t, 8)
			var over atomic.Bool
			var waiter sync.WaitGroup
			waiter.Go(func() {
				for !over.Load() {
					if err := wait(p); err != nil {
						t.Error(err)
						return
					}
				}
			})
			for range 5 {
				runtime.GC()
				runtime.Gosched()
			}
			over.Store(true)
			waiter.Wait()
		})
	}
}
