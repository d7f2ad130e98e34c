// Package streamcheck checks two-way TCP streams through a relay, byte for byte, while something
// happens to the relay: each stream must arrive whole, or be reset at both ends.
package streamcheck

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// text tells every place in a stream: its period is a prime.
var text = func() []byte {
	b := make([]byte, 65521)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// at is the stream's text at a place; ends say different things.
func at(end int, place int64, n int) []byte {
	from := int((place + int64(end)*7919) % int64(len(text)))
	return text[from:min(from+n, len(text))]
}

// Options say how a stream behaves.
type Options struct {
	// Full makes writers send without pauses and readers slow, so that bytes are pending in the
	// relay. Otherwise writers pause, for the other streams' sake.
	Full bool
	// ReadAfter, if not nil, is closed when the second end begins to read.
	ReadAfter <-chan struct{}
}

// Stream is a two-way stream. Both ends send and check until Stop.
type Stream struct {
	options   Options
	ends      [2]*net.TCPConn
	stop      chan struct{}
	once      sync.Once
	over      chan struct{} // closed when both ends have ended
	sent, got [2]atomic.Int64
	errs      [2][2]error // of each end's writing, reading; valid when over is closed
}

// Begin begins a stream between the two ends of a connection through a relay. Deadlines that they
// have bound it.
func Begin(client, server *net.TCPConn, o Options) *Stream {
	s := &Stream{options: o, ends: [2]*net.TCPConn{client, server}, stop: make(chan struct{}), over: make(chan struct{})}
	var wg sync.WaitGroup
	for i := range s.ends {
		wg.Go(func() { s.errs[i][0] = s.write(i) })
		wg.Go(func() { s.errs[i][1] = s.read(i) })
	}
	go func() {
		wg.Wait()
		close(s.over)
	}()
	return s
}

func (s *Stream) write(end int) error {
	for {
		n, err := s.ends[end].Write(at(end, s.sent[end].Load(), 8<<10))
		s.sent[end].Add(int64(n))
		if err != nil {
			return err
		}
		if s.stopped(!s.options.Full) {
			return s.ends[end].CloseWrite()
		}
	}
}

// stopped reports whether the stream is to end, after a pause if it is not.
func (s *Stream) stopped(pause bool) bool {
	if pause {
		select {
		case <-s.stop:
		case <-time.After(time.Millisecond):
		}
	}
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *Stream) read(end int) error {
	if end == 1 && s.options.ReadAfter != nil {
		<-s.options.ReadAfter
	}
	b := make([]byte, 16<<10)
	for {
		n, err := s.ends[end].Read(b)
		for rest := b[:n]; len(rest) > 0; {
			place := s.got[end].Load()
			want := at(1-end, place, len(rest))
			if string(want) != string(rest[:len(want)]) {
				return fmt.Errorf("wrong bytes from byte %d on", place)
			}
			s.got[end].Add(int64(len(want)))
			rest = rest[len(want):]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if s.options.Full {
			s.stopped(true)
		}
	}
}

// Progress waits until bytes have arrived at both ends, or the stream has ended.
func (s *Stream) Progress(patience time.Duration) error {
	before := [2]int64{s.got[0].Load(), s.got[1].Load()}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		select {
		case <-s.over:
			return nil
		case <-time.After(time.Millisecond):
		}
		if s.got[0].Load() > before[0] && s.got[1].Load() > before[1] {
			return nil
		}
	}
	return fmt.Errorf("it stands still at %d and %d bytes", before[0], before[1])
}

// Stop lets both ends send their last bytes and a FIN. It may be called more than once.
func (s *Stream) Stop() { s.once.Do(func() { close(s.stop) }) }

// Outcome stops the stream and waits for its end. It was reset at both ends, or all that was sent
// has arrived with a clean end. The error says what it was otherwise.
func (s *Stream) Outcome() (reset bool, err error) {
	s.Stop()
	<-s.over
	var resets [2]bool
	for end, errs := range s.errs {
		for _, err := range errs {
			switch {
			case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
				resets[end] = true
			case err != nil && !errors.Is(err, unix.ENOTCONN):
				return false, fmt.Errorf("end %d: %w", end, err)
			}
		}
	}
	if resets[0] != resets[1] {
		return false, fmt.Errorf("end 0: %v; end 1: %v: a reset at one end, and not at the other", s.errs[0], s.errs[1])
	}
	for end := range s.ends {
		if sent, got := s.sent[1-end].Load(), s.got[end].Load(); !resets[0] && got != sent {
			return false, fmt.Errorf("end %d: %d bytes and a clean end; %d were sent", end, got, sent)
		}
	}
	return resets[0], nil
}
