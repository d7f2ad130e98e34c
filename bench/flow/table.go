package flow

import (
	"fmt"

	"github.com/tprelay/tprelay/bench/units"
)

// column is a column of the table: how the medians of a relay's figures are written.
type column struct {
	title string
	cell  func(median func(string) (float64, bool)) string
}

// nothing is the cell of a figure that there is not.
const nothing = "-"

// one is a column of one figure.
func one(title, figure, missing string, format func(float64) string) column {
	return column{title, func(median func(string) (float64, bool)) string {
		if v, ok := median(figure); ok {
			return format(v)
		}
		return missing
	}}
}

// two is a column of a median and a 99th percentile, in ms.
func two(title, p50, p99, format string) column {
	return column{title, func(median func(string) (float64, bool)) string {
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
	return []column{
		one("sender saw", SenderRate, nothing, rate),
		one("arrived", ArrivedRate, nothing, rate),
		one("ratio", Ratio, nothing, func(v float64) string { return fmt.Sprintf("%.2f", v) }),
		one("settled", Settle, "never", func(v float64) string { return fmt.Sprintf("%.1f s", v) }),
		one("of direct", Throughput, nothing, func(v float64) string { return fmt.Sprintf("%.3f", v) }),
		two("delay, p99", DelayMedian, DelayP99, "%.0f, %.0f ms"),
		two("added", AddedMedian, AddedP99, "%+.0f, %+.0f ms"),
		one("on the way", OnTheWay, nothing, bytes),
		one("added", BeyondDirect, nothing, added),
		one("pending", PendingMost, nothing, bytes),
		one("memory", Growth, nothing, added),
	}
}

// Rows are the table: a head, and a row of medians for each relay that was measured.
func (c *Comparison) Rows() [][]string {
	head := []string{""}
	for _, col := range columns() {
		head = append(head, col.title)
	}
	rows := [][]string{head}
	for _, relay := range c.Relays {
		var rounds []Figures
		for _, m := range c.Runs {
			if m.Relay == relay.Name {
				rounds = append(rounds, m.Figures)
			}
		}
		if len(rounds) == 0 {
			continue
		}
		row := []string{relay.Name}
		for _, col := range columns() {
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
	settled := fmt.Sprintf("Settled: time until the sender's rate stays within 10 %% of what TCP delivers over %s", held) + stays
	switch s.Reader {
	case "slow":
		settled = fmt.Sprintf("Settled: time until the sender's rate stays within 10 %% of the reader's, %s", units.Rate(s.Bottleneck)) + stays
	case "stopped":
		settled = "Settled: time after which the sender sent nothing any more"
	}
	return []string{
		fmt.Sprintf("Rates and delays: of seconds %d to %d; ratio: what the sender saw by what arrived.", s.Skipped+1, s.Seconds),
		settled + ".",
		"Delay: one way, median and 99th percentile; on the way: the most between sender and receiver; added: to those without a relay.",
		"Pending: the most that waited in tprelay for that connection; memory: growth of the relay's.",
	}
}
