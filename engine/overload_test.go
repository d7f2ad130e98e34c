package engine_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
)

// echoes has the rig's server send back what comes, until the test ends.
func (r *rig) echoes() {
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := r.server.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			})
		}
	})
	r.t.Cleanup(func() {
		r.server.Close()
		conns.Wait()
	})
}

// hear sends a message and waits for its echo.
func hear(c net.Conn, message []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, message) {
		return fmt.Errorf("said %q, heard %q", message, got)
	}
	return nil
}

// TestFourTimesMaxPairsAreAllServed: 2,000 clients come at once where 500 are let in.
// The rest waits in the backlog, and none is lost.
func TestFourTimesMaxPairsAreAllServed(t *testing.T) {
	const limit, clients = 500, 2000
	r := newRig(t, engine.Options{MaxPairs: limit, Loops: 2})
	r.echoes()
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = r.dial()
	}
	full := r.until("as many as may be", func(s engine.Stats) bool { return s.Opened == limit && s.AcceptPauses > 0 })
	began := time.Now()
	s := r.until("both loops have looked several times", func(s engine.Stats) bool { return s.Waits >= full.Waits+10 })
	// A loop looks once per tick of 100 ms, and the test has made some events.
	if most := 50 + 2*uint64(time.Since(began)/(100*time.Millisecond)); s.Accepted != limit || s.Waits-full.Waits > most {
		t.Errorf("at the limit: accepted %d, %d waits in %v", s.Accepted, s.Waits-full.Waits, time.Since(began))
	}
	errs := make(chan error, clients)
	for i, c := range conns {
		go func() {
			defer c.Close()
			errs <- hear(c, fmt.Appendf(nil, "I am %d", i))
		}()
	}
	for range conns {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	r.ended(engine.ReasonEOF, clients)
	if s := r.Stats(); s.Accepted != clients || s.Opened != clients {
		t.Errorf("accepted %d, opened %d", s.Accepted, s.Opened)
	}
}
