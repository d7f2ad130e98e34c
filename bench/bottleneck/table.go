package bottleneck

import (
	"fmt"
	"slices"

	"github.com/tprelay/tprelay/bench/units"
)

// column is a column of the table. cell formats a relay's figures of all rounds.
type column struct {
	title string
	brief bool // it is in the brief table too
	cell  func(rounds []Figures) string
}

// nothing is the cell of a figure without a value.
const nothing = "-"

// one is a column of one figure, with its spread where there is one.
func one(title, figure, missing string, format func(float64) string) column {
	return column{title, false, func(rounds []Figures) string {
		v, ok := median(figure, rounds)
		if !ok {
			return missing
		}
		if spread := spread(figure, rounds); spread > 0 {
			return fmt.Sprintf("%s ±%.0f %%", format(v), 100*spread)
		}
		return format(v)
	}}
}

// two is a column of a median and a 99th percentile, in ms.
func two(title, p50, p99, format string) column {
	return column{title, false, func(rounds []Figures) string {
		a, ok := median(p50, rounds)
		b, there := median(p99, rounds)
		if !ok || !there {
			return nothing
		}
		return fmt.Sprintf(format, a, b)
	}}
}

func columns() []column {
	rate := func(v float64) string { return units.FormatRate(v, 2) }
	bytes := func(v float64) string { return units.FormatBytes(int64(v)) }
	added := func(v float64) string {
		if v < 0 {
			return "-" + bytes(-v)
		}
		return "+" + bytes(v)
	}
	brief := func(c column) column {
		c.brief = true
		return c
	}
	return []column{
		brief(one("sender saw", SenderRate, nothing, rate)),
		brief(one("arrived", ArrivedRate, nothing, rate)),
		one("ratio", Ratio, nothing, func(v float64) string { return fmt.Sprintf("%.2f", v) }),
		one("settle time", Settle, "never", func(v float64) string { return fmt.Sprintf("%.1f s", v) }),
		one("of direct", Throughput, nothing, func(v float64) string { return fmt.Sprintf("%.3f", v) }),
		brief(two("delay, p99", DelayMedian, DelayP99, "%.0f, %.0f ms")),
		two("added", AddedMedian, AddedP99, "%+.0f, %+.0f ms"),
		brief(one("in flight", InFlight, nothing, bytes)),
		one("excess", ExcessInFlight, nothing, added),
		brief(one("pending", PendingMost, nothing, bytes)),
		brief(one("memory", Growth, nothing, added)),
	}
}

// Rows returns the table: a header, and a row of medians for each relay that was measured.
func (c *Comparison) Rows() [][]string { return c.rows(columns()) }

// Brief returns the table with fewer columns.
func (c *Comparison) Brief() [][]string {
	return c.rows(slices.DeleteFunc(columns(), func(col column) bool { return !col.brief }))
}

func (c *Comparison) rows(columns []column) [][]string {
	head := []string{""}
	for _, col := range columns {
		head = append(head, col.title)
	}
	rows := [][]string{head}
	for _, relay := range c.Relays {
		rounds := c.rounds(relay.Name)
		if len(rounds) == 0 {
			continue
		}
		row := []string{relay.Name}
		for _, col := range columns {
			row = append(row, col.cell(rounds))
		}
		rows = append(rows, row)
	}
	return rows
}

// Legend explains the columns, in sentences.
func (s Settings) Legend() []string {
	held := fmt.Sprintf("the bottleneck, %s", units.Rate(s.Bottleneck))
	const stays = ", both in the second that follows and in all that follows"
	settle := fmt.Sprintf("Settle time: until the sender's rate stays within 10 %% of what TCP delivers over %s", held) + stays
	switch s.Reader {
	case "slow":
		settle = fmt.Sprintf("Settle time: until the sender's rate stays within 10 %% of the reader's, %s", units.Rate(s.Bottleneck)) + stays
	case "stopped":
		settle = "Settle time: after which the sender sent nothing any more"
	}
	legend := []string{
		fmt.Sprintf("Rates and delays: of seconds %d to %d; ratio: what the sender saw by what arrived.", s.Skipped+1, s.Seconds),
		settle + ".",
		"Delay: one way, median and 99th percentile; in flight: the most that was sent and had not arrived; added, excess: beyond the same without a relay.",
		"Pending: the most that waited in tprelay for that connection; memory: growth of the relay's.",
	}
	if s.Rounds >= roundsForSpread {
		legend = append(legend, "±: 95 % confidence interval of the median.")
	}
	if s.Ordinary {
		legend = append(legend, fmt.Sprintf("Delay and pending are of a second transfer, whose sender's kernel holds at most %s unsent; the first one's holds as much as it likes.", units.FormatBytes(int64(s.Unsent))))
	}
	return legend
}
