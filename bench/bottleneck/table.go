package bottleneck

import (
	"fmt"
	"slices"

	"github.com/tprelay/tprelay/bench/units"
)

// column is a column of the table: how the medians of a relay's figures are written.
type column struct {
	title string
	brief bool // it is in the brief table too
	cell  func(median func(string) (float64, bool)) string
}

// nothing is the cell of a figure that there is not.
const nothing = "-"

// one is a column of one figure.
func one(title, figure, missing string, format func(float64) string) column {
	return column{title, false, func(median func(string) (float64, bool)) string {
		if v, ok := median(figure); ok {
			return format(v)
		}
		return missing
	}}
}

// two is a column of a median and a 99th percentile, in ms.
func two(title, p50, p99, format string) column {
	return column{title, false, func(median func(string) (float64, bool)) string {
		a, ok := median(p50)
		b, there := median(p99)
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

// Rows are the table: a head, and a row of medians for each relay that was measured.
func (c *Comparison) Rows() [][]string { return c.rows(columns()) }

// Brief is the table with fewer columns.
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
			row = append(row, col.cell(func(figure string) (float64, bool) { return median(figure, rounds) }))
		}
		rows = append(rows, row)
	}
	return rows
}

// Legend says what the columns are, in sentences.
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
	if s.Ordinary {
		legend = append(legend, fmt.Sprintf("Delay is that of a second transfer, whose sender's kernel holds at most %s unsent; the first one's holds as much as it likes.", units.FormatBytes(int64(s.Unsent))))
	}
	return legend
}
