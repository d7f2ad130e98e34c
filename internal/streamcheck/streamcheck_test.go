package streamcheck_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/streamcheck"
)

const patience = 30 * time.Second

// relayed is a connection through a relay of the test's own, which passes what came from the client
// through change. It has both ends, and both of the relay's.
func relayed(t *testing.T, change func([]byte) []byte) (ends, inside [2]*net.TCPConn) {
	t.Helper()
	for i := range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		a, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{a, b} {
			c.SetDeadline(time.Now().Add(patience))
			t.Cleanup(func() { c.Close() })
		}
		ends[i], inside[i] = a.(*net.TCPConn), b.(*net.TCPConn)
	}
	for i := range 2 {
		go func() {
			from, to := inside[i], inside[1-i]
			b := make([]byte, 4<<10)
			for {
				n, err := from.Read(b)
				out := b[:n]
				if i == 0 {
					out = change(out)
				}
				if _, writeErr := to.Write(out); writeErr != nil {
					return
				}
				if err == io.EOF {
					to.CloseWrite()
				}
				if err != nil {
					return
				}
			}
		}()
	}
	return ends, inside
}

func same(b []byte) []byte { return b }

// TestOutcome: a stream is whole, or reset at both ends. Anything else is an error.
func TestOutcome(t *testing.T) {
	reset := func(c *net.TCPConn) {
		c.SetLinger(0)
		c.Close()
	}
	passed := 0
	for what, c := range map[string]struct {
		change  func([]byte) []byte
		meddle  func(inside [2]*net.TCPConn) // when bytes have arrived
		options streamcheck.Options
		reset   bool
		want    string // in the error
	}{
		"whole":              {change: same},
		"whole, full":        {change: same, options: streamcheck.Options{Full: true}},
		"reset at both ends": {change: same, reset: true, meddle: func(inside [2]*net.TCPConn) { reset(inside[0]); reset(inside[1]) }},
		"reset at one end": {change: same, want: "a reset at one end, and not at the other", meddle: func(inside [2]*net.TCPConn) {
			reset(inside[0])
			inside[1].CloseWrite()
		}},
		"a wrong byte": {want: "wrong bytes from byte", change: func(b []byte) []byte {
			if len(b) > 0 {
				b[len(b)-1]++
			}
			return b
		}},
		"the end is missing": {want: "4000 bytes and a clean end", change: func(b []byte) []byte {
			b = b[:min(len(b), 4000-passed)]
			passed += len(b)
			return b
		}},
	} {
		t.Run(what, func(t *testing.T) {
			ends, inside := relayed(t, c.change)
			s := streamcheck.Begin(ends[0], ends[1], c.options)
			if c.meddle != nil {
				if err := s.Progress(patience); err != nil {
					t.Fatal(err)
				}
				c.meddle(inside)
			}
			reset, err := s.Outcome()
			if reset != c.reset || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("reset %v, %v", reset, err)
			}
		})
	}
}

// TestProgressEnds: a stream on which nothing comes stands still, and one that is over does not.
func TestProgressEnds(t *testing.T) {
	ends, inside := relayed(t, func(b []byte) []byte { return nil })
	s := streamcheck.Begin(ends[0], ends[1], streamcheck.Options{})
	if err := s.Progress(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "stands still") {
		t.Errorf("%v", err)
	}
	for _, c := range inside {
		c.SetLinger(0)
		c.Close()
	}
	if reset, err := s.Outcome(); !reset || err != nil {
		t.Errorf("%v, %v", reset, err)
	}
	if err := s.Progress(patience); err != nil {
		t.Error(err)
	}
}
