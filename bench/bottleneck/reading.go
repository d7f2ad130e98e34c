package bottleneck

import (
	"fmt"

	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/engine"
)

// What counts as what: the sender's rate and the arrived rate agree up to agreement, and
// bytes have piled up in a relay from so many high watermarks on.
const (
	agreement = 1.1
	pile      = 4 * engine.DefaultHighWatermark
)

// Reading says in sentences what the first round shows about flow control, whether it is
// what should be shown or not.
func (c *Comparison) Reading() (sentences []string) {
	if m := c.of(1, "tprelay"); m != nil {
		sentences = append(sentences, readControlled(m.Figures))
	}
	if m := c.of(1, Control); m != nil {
		sentences = append(sentences, readUncontrolled(m.Figures))
	}
	return append(sentences, c.readAddresses())
}

func readControlled(f Figures) string {
	sender, arrived := f.rates()
	text := "With flow control, the sender behind the relay "
	switch {
	case f.agree():
		text += fmt.Sprintf("saw %s, and %s arrived", sender, arrived)
	case f[SenderRate] < f[ArrivedRate]:
		text += fmt.Sprintf("was held at %s while %s arrived: what it had sent before was still in flight", sender, arrived)
	default:
		text += fmt.Sprintf("saw %s, but %s arrived, which is not as it should be", sender, arrived)
	}
	return text + fmt.Sprintf("; at most %s waited in the relay.", units.FormatBytes(int64(f[PendingMost])))
}

func readUncontrolled(f Figures) string {
	const shows = "these figures do not show what flow control is for."
	sender, arrived := f.rates()
	waited := units.FormatBytes(int64(f[PendingMost]))
	piled := fmt.Sprintf("%s piled up in the relay, whose memory grew by %s", waited, units.FormatBytes(int64(max(f[Growth], 0))))
	text := "Without it, the sender saw " + sender
	switch {
	case f[PendingMost] < pile:
		return text + fmt.Sprintf(" and %s arrived, with at most %s waiting in the relay: %s", arrived, waited, shows)
	case f.agree():
		return text + fmt.Sprintf(" and %s arrived, yet %s.", arrived, piled)
	case f[SenderRate] < f[ArrivedRate]:
		return text + fmt.Sprintf(" while %s arrived, and %s: %s", arrived, piled, shows)
	}
	return text + fmt.Sprintf(" while %s arrived; %s.", arrived, piled)
}

func (c *Comparison) readAddresses() string {
	for _, m := range c.Runs {
		if m.ServerSaw != m.Client {
			return fmt.Sprintf("With %s the client was %v, but the server saw %v.", m.Relay, m.Client, m.ServerSaw)
		}
	}
	return "In every run the server saw the client's own address and port."
}

// agree says whether the sender saw the rate at which bytes arrived.
func (f Figures) agree() bool {
	return f[SenderRate] <= f[ArrivedRate]*agreement && f[ArrivedRate] <= f[SenderRate]*agreement
}

func (f Figures) rates() (sender, arrived string) {
	return units.FormatRate(f[SenderRate], 1), units.FormatRate(f[ArrivedRate], 1)
}
