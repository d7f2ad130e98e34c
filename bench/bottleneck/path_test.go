package bottleneck

import (
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
)

func TestPathTellsHowItDelays(t *testing.T) {
	leak.Check(t)
	for _, netemOnly := range []bool{true, false} {
		p := Path{Access: 20e6, Bottleneck: 6e6, Queue: 100 * time.Millisecond, Delay: time.Millisecond, NetemOnly: netemOnly}
		lab, err := p.Lab()
		if err != nil {
			t.Fatal(err)
		}
		_, line := lab.H1.LineStats(netlab.Edge)
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
		if line && (netemOnly || p.Note != ownDelay) {
			t.Errorf("netem only: %v; this process delays, and the note is %q", netemOnly, p.Note)
		}
		if (p.Delay == 0) != (p.Note == mayDelay || p.Note == cantDelay) {
			t.Errorf("netem only: %v; the delay is %v, and the note is %q", netemOnly, p.Delay, p.Note)
		}
	}
}
