package bottleneck

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/bench/units"
)

// What the project requires of tprelay in front of a bottleneck.
const (
	leastRatio, mostRatio = 0.95, 1.05 // of what the sender saw, to what arrived
	mostSettle            = 2.0        // seconds
	leastThroughput       = 0.98       // of what arrived without a relay
	mostAddedDelay        = 150.0      // ms, median
	mostExcess            = 0.8 * mib  // bytes in flight
	mostGrowth            = 1 * mib    // of the relay's memory
	leastControl          = 2.0        // times the bottleneck's rate, without flow control

	mib = 1 << 20
)

// Goal is a figure, what is required of it, and whether that is met.
type Goal struct {
	Key      string `json:"key"`
	Figure   string `json:"figure"`
	Required string `json:"required"`
	Measured string `json:"measured"`
	Met      bool   `json:"met"`
}

// Works is not a goal's name but that of the check that [Comparison.Broken] does.
const Works = "works"

// goalKeys are the names of all goals, in the order of the table.
func goalKeys() []string {
	return []string{"ratio", "settle", "throughput", "delay", "excess", "pending", "memory", "flows", "control"}
}

// ChooseGoals gives the names in list; "all" stands for all goals.
func ChooseGoals(list []string) ([]string, error) {
	known := append(goalKeys(), Works)
	for _, name := range list {
		if name != "all" && !slices.Contains(known, name) {
			return nil, fmt.Errorf("%q: want all, or some of %s", name, strings.Join(known, ","))
		}
	}
	if slices.Contains(list, "all") {
		return goalKeys(), nil
	}
	return list, nil
}

// Goals are the goals that the measured relays allow to judge: of the first relay that is
// not [Direct], against it, and of [Control]. Medians of the rounds count, and figures that
// compare two relays do so within a round.
func (c *Comparison) Goals() (goals []Goal) {
	subject := ""
	for _, r := range c.Relays {
		if r.Name != Direct {
			subject = r.Name
			break
		}
	}
	direct, rounds := c.rounds(Direct), c.rounds(subject)
	if len(direct) == 0 || len(rounds) == 0 {
		return nil
	}
	set := c.Settings
	// add adds a goal of a figure. Where the median of it does not exist, it is missed.
	add := func(key, title, required, figure string, met func(float64) bool, format func(float64) string) {
		g := Goal{Key: key, Figure: title, Required: required, Measured: "never"}
		if v, ok := median(figure, rounds); ok {
			g.Measured, g.Met = format(v), met(v)
		}
		goals = append(goals, g)
	}
	base := func(figure, missing string, format func(float64) string) string {
		if v, ok := median(figure, direct); ok {
			return " (direct " + format(v) + ")"
		}
		return " (direct " + missing + ")"
	}
	plain := func(v float64) string { return fmt.Sprintf("%.3f", v) }
	seconds := func(v float64) string { return fmt.Sprintf("%.1f s", v) }
	ms := func(v float64) string { return fmt.Sprintf("%.0f ms", v) }
	mebi := func(v float64) string { return fmt.Sprintf("%.2f MiB", v/mib) }

	add("ratio", fmt.Sprintf("sender / arrived, seconds %d-%d", set.Skipped+1, set.Seconds), "0.95 to 1.05", Ratio,
		func(v float64) bool { return v >= leastRatio && v <= mostRatio },
		func(v float64) string { return plain(v) + base(Ratio, "-", plain) })
	add("settle", "settle time of the sender's rate, within 10 %", "<= 2 s", Settle,
		func(v float64) bool { return v <= mostSettle },
		func(v float64) string { return seconds(v) + base(Settle, "never", seconds) })
	add("throughput", "throughput at h3 against direct", ">= 0.98", Throughput,
		func(v float64) bool { return v >= leastThroughput },
		func(v float64) string {
			arrived, _ := median(ArrivedRate, rounds)
			return fmt.Sprintf("%.3f (%s)", v, units.FormatRate(arrived, 2))
		})
	add("delay", "added one-way delay under load, median", "<= 150 ms", AddedMedian,
		func(v float64) bool { return v <= mostAddedDelay },
		func(v float64) string { return ms(v) + base(DelayMedian, "-", ms) })
	add("excess", "excess in flight, beyond direct", "<= 0.8 MiB", ExcessInFlight,
		func(v float64) bool { return v <= mostExcess },
		func(v float64) string { return mebi(v) + base(InFlight, "-", mebi) })
	if pending, ok := most(PendingMost, rounds); ok {
		goals = append(goals, Goal{
			"pending", "pending bytes in the relay, maximum", "<= " + units.FormatBytes(set.Watermark),
			units.FormatBytes(int64(pending)), pending <= float64(set.Watermark),
		})
	}
	add("memory", "growth of the relay's memory, 1 flow", "<= 1 MiB", Growth, func(v float64) bool { return v <= mostGrowth }, mebi)
	if m := c.Crowd; m != nil {
		bound := int64(set.Crowd) * set.Watermark
		g := Goal{
			"flows", fmt.Sprintf("growth of the relay's memory, %d flows", set.Crowd), "<= " + units.FormatBytes(bound),
			mebi(m.Figures[Growth]), m.Figures[Growth] <= float64(bound),
		}
		if m.Failed > 0 {
			g.Measured += fmt.Sprintf(", %d flows failed", m.Failed)
		}
		goals = append(goals, g)
	}
	if control := c.rounds(Control); subject == "tprelay" && len(control) > 0 {
		sent, _ := median(SenderRate, control)
		grown, _ := median(Growth, control)
		times := sent / Goodput(float64(set.Bottleneck))
		goals = append(goals, Goal{
			"control", "without flow control: sender / bottleneck", "> 2, memory grows",
			fmt.Sprintf("%.2f, by %.1f MiB", times, grown/mib), times > leastControl && grown > mostGrowth,
		})
	}
	return goals
}

// Missed are the names of the goals among wanted that are not met, and what
// [Comparison.Broken] says, if [Works] is among them.
func (c *Comparison) Missed(wanted []string) (missed []string) {
	for _, g := range c.Goals() {
		if !g.Met && slices.Contains(wanted, g.Key) {
			missed = append(missed, g.Key)
		}
	}
	if slices.Contains(wanted, Works) {
		missed = append(missed, c.Broken()...)
	}
	return missed
}

// Broken says what does not work at all, whatever the figures, which depend on how busy
// the machine is: nothing arrived, or the sender was not faster without flow control.
func (c *Comparison) Broken() (broken []string) {
	for _, m := range c.Runs {
		if m.Figures[SenderRate] <= 0 || m.Figures[ArrivedRate] <= 0 {
			broken = append(broken, fmt.Sprintf("round %d: nothing arrived with %s", m.Round, m.Relay))
		}
		notSlower := func(other *Measured) bool {
			return other.Round == m.Round && other != m && other.Figures[SenderRate] >= m.Figures[SenderRate]
		}
		if m.Relay == Control && slices.ContainsFunc(c.Runs, notSlower) {
			broken = append(broken, fmt.Sprintf("round %d: the sender was not faster without flow control", m.Round))
		}
	}
	return broken
}

// GoalRows are the table of the goals.
func GoalRows(goals []Goal) [][]string {
	rows := [][]string{{"figure", "required", "measured"}}
	for _, g := range goals {
		if !g.Met {
			g.Measured += "  MISSED"
		}
		rows = append(rows, []string{g.Figure, g.Required, g.Measured})
	}
	return rows
}

// most is the largest value of all rounds.
func most(name string, rounds []Figures) (largest float64, ok bool) {
	for _, f := range rounds {
		if v, there := f[name]; there {
			largest, ok = max(largest, v), true
		}
	}
	return largest, ok
}
