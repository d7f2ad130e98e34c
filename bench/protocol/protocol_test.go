package protocol

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// requests returns requests, one after the other.
func requests(all ...Request) []byte {
	var text []byte
	for _, r := range all {
		one := make([]byte, r.Length)
		r.Put(one, NewPattern(50))
		text = append(text, one...)
	}
	return text
}

func TestRequestsAreFoundHoweverTheyAreSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []Request
		for range rapid.IntRange(0, 5).Draw(t, "requests") {
			want = append(want, Request{
				Length: rapid.IntRange(HeaderSize, 300).Draw(t, "length"),
				Reply:  rapid.IntRange(1, MaxMessage).Draw(t, "reply"),
				Seed:   byte(rapid.IntRange(0, Period-1).Draw(t, "seed")),
				Close:  rapid.Bool().Draw(t, "close"),
			})
		}
		var got []Request
		var reader RequestReader
		for text := requests(want...); len(text) > 0; {
			n := rapid.IntRange(1, len(text)).Draw(t, "piece")
			for data := text[:n]; len(data) > 0; {
				r, rest, found, err := reader.Next(data)
				if err != nil {
					t.Fatal(err)
				}
				if !found && len(rest) > 0 {
					t.Fatalf("%d bytes are left without a request", len(rest))
				}
				if found {
					got = append(got, r)
				}
				data = rest
			}
			text = text[n:]
		}
		if len(got) != len(want) {
			t.Fatalf("%v of %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%v, wanted %v", got[i], want[i])
			}
		}
	})
}

func TestRequestWithALostByteIsRefused(t *testing.T) {
	whole := requests(Request{Length: 200, Reply: 1, Seed: 7}, Request{Length: 200, Reply: 1, Seed: 9})
	for _, lost := range []int{HeaderSize, 100, 199} {
		text := append(bytes.Clone(whole[:lost]), whole[lost+1:]...)
		var reader RequestReader
		if _, _, _, err := reader.Next(text); !errors.Is(err, ErrWrongBytes) {
			t.Errorf("without byte %d: %v", lost, err)
		}
	}
}

func FuzzRequests(f *testing.F) {
	f.Add(requests(Request{Length: 16, Reply: 1}, Request{Length: 20, Reply: 99, Seed: 250, Close: true}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var reader RequestReader
		taken := 0
		for rest := data; len(rest) > 0; {
			r, left, found, err := reader.Next(rest)
			if err != nil {
				return
			}
			if !found {
				break
			}
			if taken += r.Length; taken != len(data)-len(left) {
				t.Fatalf("after requests of %d bytes, %d were taken", taken, len(data)-len(left))
			}
			if again := requests(r); !bytes.Equal(again[:HeaderSize], data[taken-r.Length:][:HeaderSize]) {
				t.Fatalf("%+v is not % x", r, data[taken-r.Length:][:HeaderSize])
			}
			rest = left
		}
	})
}

func TestLostRepeatedAndReorderedBytesAreFound(t *testing.T) {
	p := NewPattern(1 << 10)
	for at := range 3 * Period {
		if err := Check(p.From(at, 100), at); err != nil {
			t.Fatalf("right bytes at %d: %v", at, err)
		}
		for _, shift := range []int{1, 2, 100, 250, 1448, 4096, 65536} {
			if Check(p.From(at, 100), at+shift) == nil {
				t.Fatalf("%d bytes less at %d go unnoticed", shift, at)
			}
		}
	}
	if n := len(p.From(5, 1<<20)); n != 1<<10 {
		t.Errorf("%d bytes", n)
	}
}
