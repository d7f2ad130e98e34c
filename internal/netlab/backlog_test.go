package netlab

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBacklogKeepsFramesInOrder(t *testing.T) {
	var b backlog
	random := rand.New(rand.NewPCG(1, 2))
	var in, out uint64
	for in < 20_000 || out < in {
		for range random.IntN(100) {
			if in == 20_000 {
				break
			}
			n := 8 + random.IntN(frameRoom-8)
			binary.NativeEndian.PutUint64(b.room(), in)
			b.push(n, time.Duration(n))
			in++
		}
		for range random.IntN(110) {
			frame, came := b.first()
			if frame == nil {
				if out != in {
					t.Fatalf("empty, although %d frames were taken and %d given", in, out)
				}
				break
			}
			if got := binary.NativeEndian.Uint64(frame); got != out || time.Duration(len(frame)) != came {
				t.Fatalf("frame %d of %d bytes, came %d; wanted frame %d", got, len(frame), came, out)
			}
			b.pop()
			out++
		}
	}
}

func TestFullBacklogHasRoomAgainOnceAChunkIsEmpty(t *testing.T) {
	var b backlog
	frames := 0
	for ; b.room() != nil; frames++ {
		b.push(frameRoom, 0)
	}
	if held := frames * frameRoom; held > chunksMost*chunkSize || held < chunksMost*(chunkSize-frameRoom) {
		t.Errorf("full with %d bytes", held)
	}
	for range chunkSize / frameRoom {
		b.pop()
	}
	if b.room() == nil {
		t.Error("no room, although a chunk is empty")
	}
}
