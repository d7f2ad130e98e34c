package e2e

import (
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// TestSmallSegmentsThroughSmallPipes is sozu pull request 1323: a pipe counts slots and
// not bytes, so small segments fill it long before its capacity. A relay that takes "the pipe is
// full" for "the socket is empty" hangs. Segments of 536 bytes, pipes of one page.
func TestSmallSegmentsThroughSmallPipes(t *testing.T) {
	s := setup{
		lab:    netlab.Config{MSS: 536},
		engine: engine.Options{PipeSize: 4096},
	}
	eachWith(t, families(tproxy.TPROXY), s, func(t *testing.T, g *gateway) {
		amount := int64(100 * mebibyte)
		if g.v6 {
			amount /= 4
		}
		l := g.listen()
		client, server := g.pair(l)
		up := send(client, stream(10, amount), true)
		expect(t, "server", server, 10, amount)
		down := send(server, stream(11, amount), true)
		expect(t, "client", client, 11, amount)
		for _, done := range []<-chan error{up, down} {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		s := g.Stats()
		t.Logf("%d splice calls: source empty %d times, pipe full %d, sink full %d", s.Splices, s.SourceEmpty, s.PipeFull, s.SinkFull)
		if s.Splices == 0 {
			t.Error("nothing was spliced")
		}
		g.onOnePath()
	})
}
