package engine_test

import (
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
)

// TestServerThatSpeaksAndResetsBeforeTheLoopLooks: the outgoing connection stood, though the
// first that the loop hears of it is its end. That is no failed dial, and what the
// server said is delivered.
func TestServerThatSpeaksAndResetsBeforeTheLoopLooks(t *testing.T) {
	for name, fin := range map[string]bool{"RST": false, "FIN and RST": true} {
		t.Run(name, func(t *testing.T) {
			// The loop is held while it accepts the first client and the third. In between it
			// dials for the second, and cannot look at what comes of that.
			held, release := make(chan struct{}), make(chan struct{})
			asked := 0
			r := newRig(t, engine.Options{Loops: 1, Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
				if asked++; asked != 2 {
					held <- struct{}{}
					<-release
				}
				return intercept.Decision{}
			})})
			one := r.dial()
			<-held
			two, three := r.dial(), r.dial()
			release <- struct{}{}
			<-held
			atOne, atTwo := r.accept(), r.accept()
			data := noise(1000)
			<-sendAll(atTwo, data, fin)
			rst(atTwo)
			release <- struct{}{}
			if fin {
				expect(t, "client", two, data)
			} else if got := expectReset(t, "client", two); sum(got) != sum(data) {
				t.Errorf("%d of %d bytes came before the reset", len(got), len(data))
			}
			one.Close()
			atOne.Close()
			three.Close()
			r.accept().Close()
			r.ended(engine.ReasonReset, 1)
			if s := r.Stats(); len(s.DialErrors) != 0 || s.Opened != 3 {
				t.Errorf("%d opened, dial errors %v", s.Opened, s.DialErrors)
			}
		})
	}
}
