package epoll_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
)

func TestWaitDoesNotAllocate(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{Key: 1}))
	b := []byte("x")
	n := testing.AllocsPerRun(100, func() {
		if _, err := unix.Write(far.fd, b); err != nil {
			t.Error(err)
		}
		if err := p.Wake(); err != nil {
			t.Error(err)
		}
		events, err := p.Wait(patience)
		if err != nil {
			t.Error(err)
		}
		for _, ev := range events {
			_, _, _ = ev.Token(), ev.Readable(), ev.Writable()
		}
		if events, err = p.Wait(0); err != nil { // nothing is there
			t.Error(events, err)
		}
		if _, err := unix.Read(near.fd, b); err != nil {
			t.Error(err)
		}
	})
	if n != 0 && !raceEnabled {
		t.Errorf("%v allocations per round", n)
	}
}

func BenchmarkWake(b *testing.B) {
	p := poller(b, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Wake(); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(-1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWaitForNothing(b *testing.B) {
	p := poller(b, 8)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Wait(0); err != nil {
			b.Fatal(err)
		}
	}
}
