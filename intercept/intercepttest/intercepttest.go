// Package intercepttest tests interceptors without sockets. It calls a handler as the engine does,
// with its input cut in many ways, because the network decides where one read ends and the next
// begins.
//
//	func TestUpper(t *testing.T) {
//		got, _ := intercepttest.Run(t, func() intercept.Handler { return upper{} }, []byte("hello"))
//		if string(got) != "HELLO" {
//			t.Errorf("got %q", got)
//		}
//	}
//
// It follows package intercept's promise of stability.
package intercepttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/tprelay/tprelay/intercept"
)

const (
	maxExhaustive = 8         // bytes of input up to which Run tries every segmentation
	maxTwoReads   = 512       // bytes of input up to which Run tries every pair of reads
	maxSmallReads = 1024      // reads of the segmentation with the smallest reads
	maxRead       = 512 << 10 // the engine's largest read

	poison = 0xDB // overwrites a chunk's memory after the call
	spare  = 16   // bytes of memory behind a chunk
)

// Option changes what Run does.
type Option func(*config)

type config struct {
	seed    uint64
	random  int
	maxHeld int
}

// Seed sets the seed of the random segmentations. Default: 1.
func Seed(seed uint64) Option { return func(c *config) { c.seed = seed } }

// Random sets how many random segmentations Run tries for an input that is too long for all of
// them. Default: 50.
func Random(n int) Option { return func(c *config) { c.random = n } }

// MaxHeld fails the test when the handler holds back more than n bytes after a call. Default:
// intercept.MaxHold, above which the engine resets the pair.
func MaxHeld(n int) Option { return func(c *config) { c.maxHeld = n } }

// Run drives handlers with input and returns what the sink gets and the verdict that ended the
// direction: Forward if the handler saw the end of the stream. Open must give a new handler each
// time, or one that keeps no state.
//
// An input of up to 8 bytes is cut in every possible way. A longer one comes in one read, in the
// smallest reads, in every two reads (up to 512 bytes), and in random reads; the seed makes them
// the same in each run. The end of the stream comes with the last bytes, alone, or as that of a
// connection that was cut off (Chunk.Cut).
//
// The test fails if
//
//   - what the sink gets, or whether the handler ends the pair, depends on where the input is cut.
//     A cut off stream is compared only with other cut off streams. Bytes that are sent before a
//     Reset may be fewer or more, but not different ones;
//   - the handler uses a chunk after the call: its memory is overwritten then;
//   - the handler holds back more than MaxHeld bytes, or returns Hold at the end of the stream;
//   - the handler panics, gives a verdict that there is none of, or does not close.
func Run(t testing.TB, open func() intercept.Handler, input []byte, options ...Option) (sink []byte, last intercept.Verdict) {
	t.Helper()
	sink, last, err := run(open, input, options)
	if err != nil {
		t.Fatal(err)
	}
	return sink, last
}

// Feed drives h with the given reads and then with the end of the stream alone, and returns what
// the sink gets and the verdict that ended the direction. It is for handlers whose output depends
// on the reads, and for handlers whose state the test looks at. It makes the same checks as Run for
// the one segmentation, except that it allows Hold at the end, and it does not close h.
func Feed(t testing.TB, h intercept.Handler, reads ...string) (sink []byte, last intercept.Verdict) {
	t.Helper()
	s := stream{ending: alone}
	for _, read := range reads {
		s.reads = append(s.reads, len(read))
		s.input = append(s.input, read...)
	}
	r, err := s.drive(h, intercept.MaxHold)
	if err != nil {
		t.Fatal(err)
	}
	return r.sink, r.last
}

func run(open func() intercept.Handler, input []byte, options []Option) ([]byte, intercept.Verdict, error) {
	c := config{seed: 1, random: 50, maxHeld: intercept.MaxHold}
	for _, o := range options {
		o(&c)
	}
	var first [endings]*result
	for _, reads := range c.segmentations(len(input)) {
		for e := range endings {
			if e == withLast && len(reads) == 0 {
				continue
			}
			s := stream{input, reads, e}
			h := open()
			if h == nil {
				return nil, 0, fmt.Errorf("intercepttest: the function that opens handlers returned nil")
			}
			got, err := s.drive(h, c.maxHeld)
			if err == nil && got.heldAtEnd {
				err = fmt.Errorf("the handler returned Hold at the end of the stream (Chunk.End)")
			}
			if err == nil {
				err = closeHandler(h)
			}
			if err != nil {
				return nil, 0, fmt.Errorf("intercepttest: %v: %w", s, err)
			}
			want := &first[e]
			if e == withLast {
				want = &first[alone]
			}
			if *want == nil {
				*want = got
				continue
			}
			if err := (*want).differs(got); err != nil {
				return nil, 0, fmt.Errorf("intercepttest: the output depends on how the input is cut:\n\t%v: %w\n\t%v: %v", s, err, (*want).stream, *want)
			}
			if got.last == intercept.Reset && len(got.sink) > len((*want).sink) {
				*want = got
			}
		}
	}
	return first[alone].sink, first[alone].last, nil
}

// segmentations are the ways to cut n bytes that Run tries. The first one does not cut.
func (c *config) segmentations(n int) (all [][]int) {
	if n <= maxExhaustive {
		for cuts := range 1 << max(0, n-1) { // bit i set: a cut behind byte i
			var reads []int
			for i, length := 0, 0; i < n; i++ {
				length++
				if i == n-1 || cuts>>i&1 == 1 {
					reads, length = append(reads, length), 0
				}
			}
			all = append(all, reads)
		}
		return all
	}
	all = append(all, equal(n, maxRead), equal(n, (n+maxSmallReads-1)/maxSmallReads))
	if n <= maxTwoReads {
		for i := 1; i < n; i++ {
			all = append(all, []int{i, n - i})
		}
	}
	r := rand.New(rand.NewPCG(c.seed, 1))
	for range c.random {
		var reads []int
		for left := n; left > 0; {
			most := min(left, maxRead)
			if r.IntN(2) == 0 && n <= maxSmallReads {
				most = min(left, 8)
			}
			read := 1 + r.IntN(most)
			reads, left = append(reads, read), left-read
		}
		all = append(all, reads)
	}
	return all
}

// equal cuts n bytes into reads of the given size; the last one may be smaller.
func equal(n, size int) (reads []int) {
	for ; n > 0; n -= size {
		reads = append(reads, min(n, size))
	}
	return reads
}

// ending says how a stream ends.
type ending int

const (
	alone    ending = iota // a FIN, seen after the last bytes
	withLast               // a FIN, seen together with the last bytes
	cutOff                 // an RST, seen after the last bytes
	endings
)

func (e ending) String() string {
	return [...]string{"the end alone", "the end with the last one", "cut off"}[e]
}

// stream is an input, and how it is cut.
type stream struct {
	input  []byte
	reads  []int
	ending ending
}

func (s stream) String() string {
	const most = 20
	if len(s.reads) > most {
		return fmt.Sprintf("%d reads of %v... bytes, %v", len(s.reads), s.reads[:most], s.ending)
	}
	return fmt.Sprintf("reads of %v bytes, %v", s.reads, s.ending)
}

// result is what a handler made of a stream.
type result struct {
	stream    stream
	sink      []byte
	last      intercept.Verdict
	heldAtEnd bool
}

func (r *result) String() string { return fmt.Sprintf("%s, %v", quote(r.sink), name(r.last)) }

// differs returns an error that shows got if it is not what r is.
func (r *result) differs(got *result) error {
	a, b := r.sink, got.sink
	if r.last == intercept.Reset && got.last == intercept.Reset {
		n := min(len(a), len(b))
		a, b = a[:n], b[:n]
	}
	if bytes.Equal(a, b) && outcome(r.last) == outcome(got.last) {
		return nil
	}
	err := fmt.Errorf("%v", got)
	if bytes.Count(a, []byte{poison}) != bytes.Count(b, []byte{poison}) {
		err = fmt.Errorf("%w\n\tbytes %#x: the handler has kept Chunk.Data after it returned, or sends what it has not read", err, poison)
	}
	return err
}

// outcome makes one of Forward and Detach: after either, all bytes that follow are sent on.
func outcome(v intercept.Verdict) intercept.Verdict {
	if v == intercept.Detach {
		return intercept.Forward
	}
	return v
}

// drive calls h with s as the engine does.
func (s stream) drive(h intercept.Handler, maxHeld int) (*result, error) {
	r := &result{stream: s}
	var held []byte
	var used []byte // memory of the chunk before, which nobody may write to
	var c intercept.Chunk
	rest, reads := s.input, s.reads
	for ended := false; !ended; {
		n := 0
		if len(reads) > 0 {
			n, reads = reads[0], reads[1:]
		}
		ended = n == 0 || s.ending == withLast && len(reads) == 0
		memory := make([]byte, 0, len(held)+n+spare)
		memory = append(append(memory, held...), rest[:n]...)
		rest = rest[n:]
		c.Reset(memory, ended)
		c.Cut = ended && s.ending == cutOff
		verdict, err := call(h, &c)
		if err != nil {
			return nil, err
		}
		r.last = verdict
		if verdict == intercept.Hold && ended {
			r.heldAtEnd = true
			verdict, r.last = intercept.Forward, intercept.Forward
		}
		held = nil
		switch verdict {
		case intercept.Hold:
			if len(c.Data) > maxHeld {
				return nil, fmt.Errorf("the handler holds back %d bytes: at most %d", len(c.Data), maxHeld)
			}
			r.sink = append(r.sink, c.Written()...)
			held = bytes.Clone(c.Data)
		case intercept.Forward, intercept.Detach, intercept.Close:
			r.sink = append(append(r.sink, c.Written()...), c.Data...)
		case intercept.Reset:
		default:
			return nil, fmt.Errorf("the handler returned %d, which is no verdict", verdict)
		}
		if bytes.Count(used, []byte{poison}) != len(used) {
			return nil, fmt.Errorf("the handler has written to a chunk after it returned")
		}
		used = memory[:cap(memory)]
		fill(used)
		fill(c.Written())
		switch verdict {
		case intercept.Detach:
			r.sink = append(r.sink, rest...)
			return r, nil
		case intercept.Close, intercept.Reset:
			return r, nil
		}
		r.last = intercept.Forward
	}
	return r, nil
}

func fill(b []byte) {
	for n := copy(b, []byte{poison}); n > 0 && n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// call calls h, and makes a panic an error.
func call(h intercept.Handler, c *intercept.Chunk) (v intercept.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return h.Handle(c), nil
}

func closeHandler(h intercept.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked in Close: %v\n%s", p, debug.Stack())
		}
	}()
	if err := (intercept.Decision{Upstream: h}).CloseHandlers(); err != nil {
		return fmt.Errorf("closing the handler: %w", err)
	}
	return nil
}

func name(v intercept.Verdict) string {
	return [...]string{"Forward", "Hold", "Detach", "Close", "Reset"}[v]
}

// quote shows b, and only the ends of a long one.
func quote(b []byte) string {
	const most = 200
	if len(b) <= most {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%d bytes %q...%q", len(b), b[:most/2], b[len(b)-most/2:])
}
