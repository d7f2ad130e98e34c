package bottleneck

import (
	"net/netip"
	"strings"
	"testing"
)

func TestReadingFollowsTheFigures(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(controlled, without *Measured)
		want   string
	}{
		"as it should be": {
			func(_, _ *Measured) {},
			"With flow control, the sender behind the relay saw 5.7 Mbit/s, and 5.6 Mbit/s arrived; at most 47 KiB waited in the relay.\n" +
				"Without it, the sender saw 19.0 Mbit/s while 5.7 Mbit/s arrived; 17.0 MiB piled up in the relay, whose memory grew by 18.0 MiB.\n" +
				"In every run the server saw the client's own address and port.",
		},
		"flow control fails": {
			func(controlled, _ *Measured) { controlled.Figures[SenderRate] = 8.9e6 },
			"saw 8.9 Mbit/s, but 5.6 Mbit/s arrived, which is not as it should be",
		},
		"what waited still arrives": {
			func(controlled, _ *Measured) { controlled.Figures[SenderRate] = 4.7e6 },
			"was held at 4.7 Mbit/s while 5.6 Mbit/s arrived: what it had sent before was still in flight",
		},
		"no bottleneck": {
			func(_, without *Measured) {
				without.Figures = Figures{SenderRate: 5.7e6, ArrivedRate: 5.6e6, PendingMost: 3000}
			},
			"Without it, the sender saw 5.7 Mbit/s and 5.6 Mbit/s arrived, with at most 3 KiB waiting in the relay: these figures do not show what flow control is for.",
		},
		"piles up all the same": {
			func(_, without *Measured) { without.Figures[SenderRate] = 5.7e6 },
			"arrived, yet 17.0 MiB piled up",
		},
		"more arrived": {
			func(_, without *Measured) { without.Figures[SenderRate] = 1e6 },
			"these figures do not show what flow control is for",
		},
		"another address": {
			func(controlled, _ *Measured) { controlled.Client = netip.MustParseAddrPort("10.0.0.1:1") },
			"With tprelay the client was 10.0.0.1:1, but the server saw invalid AddrPort.",
		},
	} {
		c := twoRounds()
		tc.change(c.of(1, "tprelay"), c.of(1, Control))
		if text := strings.Join(c.Reading(), "\n"); !strings.Contains(text, tc.want) {
			t.Errorf("%s:\n%s\nwanted: %s", name, text, tc.want)
		}
	}
}
