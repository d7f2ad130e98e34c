package output

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
)

// Headlines say in words which relay is ahead in what: one line for each workload, for its first
// metric and for the CPU time. Relays that are within 3 % of the best, or whose rounds are not
// apart from its, share the lead.
func Headlines(r *stats.Results) (lines []string) {
	for _, w := range r.Measured() {
		var parts []string
		for i, m := range w.Metrics {
			if i == 0 || m.Name == scenario.RelayCPU {
				if text := lead(r, w, m); text != "" {
					parts = append(parts, text)
				}
			}
		}
		if len(parts) > 0 {
			lines = append(lines, w.Name+": "+strings.Join(parts, "; "))
		}
	}
	return lines
}

// standing is a relay's place.
type standing struct {
	relay string
	stats.Cell
}

// lead says which relay is best by a metric, and which is next. Without a second relay, or with
// clients that set the pace, there is nothing to say. direct is no relay, so it does not take part.
func lead(r *stats.Results, w scenario.Workload, m scenario.Metric) string {
	var all []standing
	for _, relay := range r.Relays {
		c := r.Cell(stats.At{Workload: w.Name, Relay: relay.Name}, m)
		if relay.Relay != "direct" && c.Rounds > 0 && c.Median > 0 {
			all = append(all, standing{relay.Name, c})
		}
	}
	if len(all) < 2 {
		return ""
	}
	slices.SortStableFunc(all, func(a, b standing) int {
		if m.More {
			a, b = b, a
		}
		return cmp.Compare(a.Median, b.Median)
	})
	const same = 0.03
	first := []string{all[0].relay}
	rest := all[1:]
	for len(rest) > 0 {
		_, apart := r.Differ(m, stats.At{Workload: w.Name, Relay: all[0].relay}, stats.At{Workload: w.Name, Relay: rest[0].relay})
		if math.Abs(rest[0].Median/all[0].Median-1) > same && apart {
			break
		}
		first, rest = append(first, rest[0].relay), rest[1:]
	}
	if len(rest) == 0 {
		return fmt.Sprintf("no clear lead in %s", m.Title)
	}
	is := "is"
	if len(first) > 1 {
		is = "are"
	}
	by := fmt.Sprintf("%.0f %%", 100*math.Abs(rest[0].Median/all[0].Median-1))
	if factor := max(rest[0].Median/all[0].Median, all[0].Median/rest[0].Median); factor >= 2 {
		by = fmt.Sprintf("a factor of %.1f", factor)
	}
	return fmt.Sprintf("%s %s ahead in %s, by %s before %s", strings.Join(first, ", "), is, m.Title, by, rest[0].relay)
}
