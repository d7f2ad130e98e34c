package bottleneck

import (
	"fmt"
	"strings"

	"github.com/tprelay/tprelay/bench/units"
)

// String describes the results in sentences.
func (f Figures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The sender saw %s, and %s arrived", units.FormatRate(f[SenderRate], 2), units.FormatRate(f[ArrivedRate], 2))
	if at, ok := f[Settle]; ok {
		fmt.Fprintf(&b, "; its rate settled after %.1f s", at)
	} else {
		b.WriteString("; its rate never settled")
	}
	fmt.Fprintf(&b, ". At most %s were in flight", units.FormatBytes(int64(f[InFlight])))
	if v, ok := f[PendingMost]; ok {
		fmt.Fprintf(&b, ", %s of them pending in the relay", units.FormatBytes(int64(v)))
	}
	if v, ok := f[DelayMedian]; ok {
		fmt.Fprintf(&b, ". One-way delay: median %.0f ms, 99th percentile %.0f ms", v, f[DelayP99])
	}
	if v, ok := f[Growth]; ok {
		fmt.Fprintf(&b, ". The relay's memory grew by %s", units.FormatBytes(int64(v)))
	}
	b.WriteByte('.')
	return b.String()
}
