package engine

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestBuffersAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s buffers
	model := map[int32][]byte{}
	charged := 0
	for range 5000 {
		var id int32 = -1
		for k := range model {
			id = k
			break
		}
		switch op := rnd.IntN(4); {
		case id < 0 || op == 0 && len(model) < 10:
			id = s.get()
			if _, ok := model[id]; ok || s.waiting(id) != 0 {
				t.Fatal("lent twice, or not empty")
			}
			model[id] = nil
			charged += s.size(id)
		case op == 1:
			charged -= s.size(id)
			s.put(id)
			if s.waiting(id) > 0 || s.size(id) != 0 {
				t.Fatal("not empty after put")
			}
			delete(model, id)
		case op == 2:
			data := make([]byte, rnd.IntN(100_000))
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			charged -= s.size(id)
			s.append(id, data)
			charged += s.size(id)
			model[id] = append(model[id], data...)
		default:
			_, size := s.gather(id)
			n := rnd.IntN(size + 1)
			charged -= s.size(id)
			s.consume(id, n)
			charged += s.size(id)
			model[id] = model[id][n:]
		}
		sum := 0
		for id, want := range model {
			var front []byte
			vector, size := s.gather(id)
			for _, v := range vector {
				front = append(front, unsafe.Slice(v.Base, v.Len)...)
			}
			if size != len(front) || !bytes.HasPrefix(want, front) || size == 0 && len(want) > 0 {
				t.Fatal("what is in front differs")
			}
			if s.waiting(id) != len(want) || !bytes.Equal(s.appendTo(nil, id), want) || s.size(id) < len(want) {
				t.Fatal("bytes differ")
			}
			sum += s.size(id)
		}
		if sum != charged || s.inUse() != len(model) {
			t.Fatalf("%d bytes in %d buffers, charged %d for %d", sum, s.inUse(), charged, len(model))
		}
	}
}

// TestDrainedBuffersKeepTheirSize: the pool learns from the lengths that come back, and one
// that saw buffers that are nearly empty would, after 42,000 of them, keep no others.
func TestDrainedBuffersKeepTheirSize(t *testing.T) {
	var s buffers
	data := make([]byte, 10) // most of a chunk is not used
	cycle := func() {
		id := s.get()
		s.append(id, data)
		s.consume(id, len(data))
		s.put(id)
	}
	for range 100_000 {
		cycle()
	}
	if n := testing.AllocsPerRun(10_000, cycle); n > 0.1 && !raceEnabled { // the race detector empties sync.Pools at random
		t.Errorf("%v allocations per use", n)
	}
}

func BenchmarkBuffers(b *testing.B) {
	var s buffers
	data := make([]byte, 10_000)
	b.ReportAllocs()
	for range b.N {
		id := s.get()
		s.append(id, data)
		s.consume(id, len(data))
		s.put(id)
	}
}
