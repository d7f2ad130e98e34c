package engine

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/engine/internal/pump"
)

// TestRecordIsSmallAndWithoutPointers: the garbage collector must not look at 100,000
// records, and they must fit in few cache lines.
func TestRecordIsSmallAndWithoutPointers(t *testing.T) {
	typ := reflect.TypeFor[pair]()
	if typ.Size() > 256 {
		t.Errorf("a record takes %d bytes, more than 256", typ.Size())
	}
	t.Logf("a record takes %d bytes", typ.Size())
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Struct:
			for i := range typ.NumField() {
				look(typ.Field(i).Type)
			}
		case reflect.Array:
			look(typ.Elem())
		case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Func, reflect.Chan, reflect.Interface:
			t.Errorf("a record holds a %v", typ)
		}
	}
	look(typ)
}

func TestSlotsAreReusedWithANewGeneration(t *testing.T) {
	var tab table
	first := tab.take()
	slot, generation := first.slot, first.generation
	first.due, first.queued = 7, true
	tab.put(first)
	second := tab.take()
	if second.slot != slot || second.generation == generation || second.due != 0 || second.queued {
		t.Errorf("%+v after %d/%d", second, slot, generation)
	}
	records := map[*pair]bool{}
	for range 3 * slabSize {
		p := tab.take()
		if records[p] || p == second || tab.at(p.slot) != p {
			t.Fatalf("slot %d was lent twice, or has moved", p.slot)
		}
		records[p] = true
	}
	if tab.used != 3*slabSize+1 {
		t.Errorf("%d used", tab.used)
	}
}

// TestStaleEventIsDropped: an event of a pair that has ended must not touch the one
// that has its slot now.
func TestStaleEventIsDropped(t *testing.T) {
	l := oneLoop(t)
	old := l.pairs.take()
	stale := epoll.Event{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR, Fd: old.token(incoming).Key, Pad: old.generation}
	l.pairs.put(old)
	l.dispatch(stale)
	now := l.pairs.take()
	l.dispatch(stale)
	if l.count.staleEvents != 2 || now.dir[upstream].Is(pump.Readable) || now.dir[incoming].Is(pump.Broken) || now.queued {
		t.Errorf("%d stale events; the new pair: %+v", l.count.staleEvents, now)
	}
	l.pairs.put(now)
}

// BenchmarkTable takes a record and puts it back, among 8,000 others.
func BenchmarkTable(b *testing.B) {
	var tab table
	for range 8000 {
		tab.take()
	}
	b.ReportAllocs()
	for b.Loop() {
		tab.put(tab.take())
	}
}
