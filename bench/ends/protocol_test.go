package ends

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestRequestsAreFoundHoweverTheyAreSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []request
		for range rapid.IntRange(0, 5).Draw(t, "requests") {
			want = append(want, request{
				length: rapid.IntRange(headerSize, 100).Draw(t, "length"),
				reply:  rapid.IntRange(1, maxMessage).Draw(t, "reply"),
				seed:   byte(rapid.IntRange(0, period-1).Draw(t, "seed")),
				close:  rapid.Bool().Draw(t, "close"),
			})
		}
		var got []request
		var reader requestReader
		for text := requests(want...); len(text) > 0; {
			n := rapid.IntRange(1, len(text)).Draw(t, "piece")
			for data := text[:n]; len(data) > 0; {
				r, rest, found, err := reader.next(data)
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

func FuzzRequests(f *testing.F) {
	f.Add(requests(request{length: 16, reply: 1}, request{length: 20, reply: 99, seed: 250, close: true}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var reader requestReader
		taken := 0
		for rest := data; len(rest) > 0; {
			r, left, found, err := reader.next(rest)
			if err != nil {
				return
			}
			if !found {
				break
			}
			if taken += r.length; taken != len(data)-len(left) {
				t.Fatalf("after requests of %d bytes, %d were taken", taken, len(data)-len(left))
			}
			if again := requests(r); !bytes.Equal(again[:headerSize], data[taken-r.length:][:headerSize]) {
				t.Fatalf("%+v is not % x", r, data[taken-r.length:][:headerSize])
			}
			rest = left
		}
	})
}

func TestLostRepeatedAndMixedUpBytesAreFound(t *testing.T) {
	p := newPattern(1 << 10)
	for at := range 3 * period {
		if err := checkPattern(p.from(at, 100), at); err != nil {
			t.Fatalf("right bytes at %d: %v", at, err)
		}
		for _, shift := range []int{1, 2, 100, 250, 1448, 4096, 65536} {
			if checkPattern(p.from(at, 100), at+shift) == nil {
				t.Fatalf("%d bytes less at %d go unnoticed", shift, at)
			}
		}
	}
	if n := len(p.from(5, 1<<20)); n != 1<<10 {
		t.Errorf("%d bytes", n)
	}
}
