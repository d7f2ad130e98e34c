package chunks

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestQueuesAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s Queues
	model := map[ID][]byte{}
	charged := 0
	for range 5000 {
		var id ID = -1
		for k := range model {
			id = k
			break
		}
		switch op := rnd.IntN(4); {
		case id < 0 || op == 0 && len(model) < 10:
			id = s.Get()
			if _, ok := model[id]; ok || s.Len(id) != 0 {
				t.Fatal("lent twice, or not empty")
			}
			model[id] = nil
			charged += s.Size(id)
		case op == 1:
			charged -= s.Size(id)
			s.Put(id)
			if s.Len(id) > 0 || s.Size(id) != 0 {
				t.Fatal("not empty after put")
			}
			delete(model, id)
		case op == 2:
			data := make([]byte, rnd.IntN(100_000))
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			charged -= s.Size(id)
			s.Append(id, data)
			charged += s.Size(id)
			model[id] = append(model[id], data...)
		default:
			_, size := s.Gather(id)
			n := rnd.IntN(size + 1)
			charged -= s.Size(id)
			s.Consume(id, n)
			charged += s.Size(id)
			model[id] = model[id][n:]
		}
		sum := 0
		for id, want := range model {
			var front []byte
			vector, size := s.Gather(id)
			for _, v := range vector {
				front = append(front, unsafe.Slice(v.Base, v.Len)...)
			}
			if size != len(front) || !bytes.HasPrefix(want, front) || size == 0 && len(want) > 0 {
				t.Fatal("what is in front differs")
			}
			if s.Len(id) != len(want) || !bytes.Equal(s.AppendTo(nil, id), want) || s.Size(id) < len(want) {
				t.Fatal("bytes differ")
			}
			sum += s.Size(id)
		}
		if sum != charged || s.InUse() != len(model) {
			t.Fatalf("%d bytes in %d queues, charged %d for %d", sum, s.InUse(), charged, len(model))
		}
	}
}

// TestDrainedBuffersKeepTheirSize: the pool learns from the lengths that come back, and one
// that saw buffers that are nearly empty would, after 42,000 of them, keep no others.
func TestDrainedBuffersKeepTheirSize(t *testing.T) {
	var s Queues
	data := make([]byte, 10) // most of a chunk is not used
	cycle := func() {
		id := s.Get()
		s.Append(id, data)
		s.Consume(id, len(data))
		s.Put(id)
	}
	for range 100_000 {
		cycle()
	}
	if n := testing.AllocsPerRun(10_000, cycle); n > 0.1 && !raceEnabled { // the race detector empties sync.Pools at random
		t.Errorf("%v allocations per use", n)
	}
}

func BenchmarkQueues(b *testing.B) {
	var s Queues
	data := make([]byte, 10_000)
	b.ReportAllocs()
	for range b.N {
		id := s.Get()
		s.Append(id, data)
		s.Consume(id, len(data))
		s.Put(id)
	}
}
