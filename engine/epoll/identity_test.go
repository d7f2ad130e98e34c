package epoll_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
)

func TestEventBringsItsTokenBack(t *testing.T) {
	p := poller(t, 16)
	want := []epoll.Token{{}, {Key: 1}, {Generation: 1}, {Key: 7, Generation: -1}, {Key: math.MaxInt32, Generation: math.MaxInt32}, {Key: 5, Generation: math.MinInt32}}
	for _, token := range want {
		near, _ := connection(t)
		check(t, p.Add(near.fd, token))
	}
	events, err := p.Wait(patience)
	check(t, err)
	var got []epoll.Token
	for _, ev := range events {
		got = append(got, ev.Token())
		if ev.Wake() {
			t.Errorf("event %+v passes for a wake", ev)
		}
	}
	order := func(a, b epoll.Token) int {
		if a.Key != b.Key {
			return int(a.Key) - int(b.Key)
		}
		return int(a.Generation) - int(b.Generation)
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if !slices.Equal(got, want) {
		t.Errorf("tokens %v, want %v", got, want)
	}
}

// The kernel gives the number of a closed descriptor to the next one; the
// generation tells them apart.
func TestReusedDescriptorHasItsOwnGeneration(t *testing.T) {
	p := poller(t, 8)
	first, _ := connection(t)
	check(t, p.Add(first.fd, epoll.Token{Key: 4, Generation: 1}))
	number := first.fd
	events, err := p.Wait(patience)
	check(t, err)
	stale := events[0]
	first.close()

	second, far := connection(t)
	if second.fd != number {
		check(t, unix.Dup3(second.fd, number, unix.O_CLOEXEC))
		second.close()
		second.fd = number
	}
	check(t, p.Add(second.fd, epoll.Token{Key: 4, Generation: 2}))
	settle(t, p)
	far.send("x")
	fresh := until(t, p, "readable", epoll.Event.Readable)
	if stale.Token() != (epoll.Token{Key: 4, Generation: 1}) || fresh.Token() != (epoll.Token{Key: 4, Generation: 2}) {
		t.Errorf("the old event says %v, the new one %v", stale.Token(), fresh.Token())
	}
}

func TestClosedDescriptorIsSilent(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	far.send("never read")
	near.close()
	silent(t, p)
}

func TestDuplicatedDescriptorMustBeRemoved(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{Key: 1}))
	settle(t, p)
	duplicate, err := unix.FcntlInt(uintptr(near.fd), unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(duplicate)

	number := near.fd
	p.Remove(number)
	near.close()
	far.send("x")
	fds := []unix.PollFd{{Fd: int32(duplicate), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, patience); n != 1 {
		t.Fatal("nothing came", err)
	}
	silent(t, p)
	p.Remove(number) // is not there: no harm
	p.Remove(-1)

	// Without Remove, events go on after close: what the package comment warns of.
	check(t, p.Add(duplicate, epoll.Token{Key: 2}))
	settle(t, p)
	again, err := unix.FcntlInt(uintptr(duplicate), unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(again)
	check(t, unix.Close(duplicate))
	far.send("y")
	if ev := until(t, p, "readable", epoll.Event.Readable); ev.Token().Key != 2 {
		t.Errorf("event %+v", ev)
	}
	check(t, unix.Dup3(again, duplicate, unix.O_CLOEXEC)) // for the deferred Close
}

func TestAddFailsWithTheReason(t *testing.T) {
	p := poller(t, 8)
	near, _ := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	for _, c := range []struct {
		what string
		fd   int
		want error
	}{
		{"twice", near.fd, unix.EEXIST},
		{"closed", -1, unix.EBADF},
	} {
		err := p.Add(c.fd, epoll.Token{})
		if !errors.Is(err, c.want) || err.Error() != "epoll_ctl: "+c.want.Error() {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

// More descriptors than a batch takes are told in the next ones, each once.
func TestSmallBatchStarvesNobody(t *testing.T) {
	p := poller(t, 2)
	const count = 20
	for i := range count {
		near, _ := connection(t)
		check(t, p.Add(near.fd, epoll.Token{Key: int32(i)}))
	}
	seen := map[int32]int{}
	for range count {
		events, err := p.Wait(0)
		check(t, err)
		if len(events) > 2 {
			t.Fatalf("%d events in a batch of two", len(events))
		}
		for _, ev := range events {
			seen[ev.Token().Key]++
		}
	}
	silent(t, p)
	for i := range int32(count) {
		if seen[i] != 1 {
			t.Errorf("descriptor %d had %d events", i, seen[i])
		}
	}
}
