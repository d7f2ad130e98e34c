package intercept

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tprelay/tprelay/tproxy"
)

var testPair = Pair{
	ID:          17,
	Client:      netip.MustParseAddrPort("192.0.2.7:40000"),
	Destination: netip.MustParseAddrPort("198.51.100.1:443"),
	Mode:        tproxy.TPROXY,
}

// drive feeds stream to h, cut into pieces by cut, which is given what is left
// and answers between 0 and that, and applies the verdicts as the package says.
// It returns what the sink would get and the verdict that ended the stream:
// Forward if the stream went through to its end.
func drive(t testing.TB, h Handler, stream []byte, cut func(left int) int) (sink []byte, last Verdict) {
	t.Helper()
	var c Chunk
	var held []byte
	for ended := false; !ended; {
		n := 0
		if len(stream) > 0 {
			n = max(1, cut(len(stream)))
		}
		// The end comes with the last bytes or alone, as the cuts have it.
		ended = len(stream) == 0 || n == len(stream) && cut(1) == 1
		data := append(held, stream[:n]...)
		stream = stream[n:]
		c.Reset(data, ended)
		verdict := h.Handle(&c)
		if verdict == Hold && ended {
			verdict = Forward
		}
		if verdict == Hold && len(c.Data) > MaxHold || verdict > Reset {
			verdict = Reset
		}
		if verdict == Reset {
			return sink, Reset
		}
		sink = append(sink, c.Written()...)
		held = nil
		if verdict == Hold {
			held = append(held, c.Data...)
		} else {
			sink = append(sink, c.Data...)
		}
		for i := range data { // "it is not valid after Handle returns"
			data[i] = 0xEE
		}
		switch verdict {
		case Detach:
			return append(sink, stream...), Detach
		case Close:
			return sink, Close
		}
	}
	return sink, Forward
}

// random cuts by the numbers that seed gives.
func random(seed uint64) func(left int) int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(left int) int {
		if r.IntN(2) == 0 {
			return r.IntN(min(left, 8) + 1)
		}
		return r.IntN(left + 1)
	}
}

// whole does not cut, and lets the end come with the bytes.
func whole(left int) int { return left }

// single cuts into single bytes, and lets the end come alone.
func single(left int) int {
	if left > 1 {
		return 1
	}
	return 0
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// passesWithoutAllocation runs one chunk through h many times.
func passesWithoutAllocation(t *testing.T, h Handler, data []byte) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates, and empties pools at random")
	}
	var c Chunk
	read := make([]byte, len(data))
	if n := testing.AllocsPerRun(1000, func() {
		copy(read, data)
		c.Reset(read, false)
		h.Handle(&c)
	}); n != 0 {
		t.Errorf("%v allocations per chunk", n)
	}
}

// closer is a handler that counts how often it is closed.
type closer struct {
	HandlerFunc
	closed int
	panics bool // Close
}

var _ io.Closer = (*closer)(nil)

func (c *closer) Close() error {
	c.closed++
	if c.panics {
		panic("does not close")
	}
	return nil
}

func forward(*Chunk) Verdict { return Forward }
