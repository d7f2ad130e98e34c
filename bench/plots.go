package bench

import (
	"fmt"
	"math"
	"slices"

	"github.com/tprelay/tprelay/bench/svg"
)

// bars draws one metric of all points of a scenario: a group per point and a bar per
// relay. With a baseline the bars are ratios to it, and otherwise the figures.
// The whiskers are the least and the most of the rounds. nil if there is no figure.
func (r *Results) bars(points []Point, metric string) *svg.Drawing {
	const barWidth, gap, tallest = 15.0, 26.0, 4.0
	type bar struct {
		relay int
		cell  Cell
		unit  float64 // what the figures are divided by
	}
	groups := make([][]bar, len(points))
	top, count := 0.0, 0
	base := r.Settings.Baseline
	var m Metric
	for i, p := range points {
		known := false
		if m, known = p.metric(metric); !known {
			return nil
		}
		unit := 1.0
		if base != "" {
			b := r.cell(p.Name, base, m)
			if b.Rounds == 0 || b.Median == 0 {
				continue
			}
			unit = b.Median
		}
		for k, relay := range r.Relays {
			if c := r.Cell(p, relay.Name, m); c.Rounds > 0 {
				groups[i] = append(groups[i], bar{k, c, unit})
				top = max(top, c.Max/unit)
				count++
			}
		}
	}
	if count == 0 || top <= 0 {
		return nil
	}
	title := m.Title + ", " + wanted(m)
	if base != "" {
		title = fmt.Sprintf("%s, as a multiple of %s's, %s", m.Title, base, wanted(m))
		top = min(top, tallest) // what is beyond is cut, and says how much it is
	}
	step := svg.NiceStep(top / 5)
	y := svg.Upward(0, math.Ceil(top/step*0.999)*step)
	d := svg.Frame(title, float64(count)*barWidth+float64(len(points)+1)*gap, y)
	x := svg.Left + gap
	for i, group := range groups {
		if len(group) == 0 {
			continue
		}
		begin := x
		for _, b := range group {
			v := b.cell.Median / b.unit
			shown := min(max(v, 0), y.To)
			at := y.At(shown)
			says := fmt.Sprintf("%s at %s: %s", r.Relays[b.relay].Name, points[i].Name, b.cell)
			d.AddBox(svg.Round(x), at, barWidth-3, svg.Round(y.Low-at), r.series(b.relay), says)
			if v > y.To {
				d.AddText(svg.Round(x+barWidth/2-1), svg.Top-2, "middle", "axis", fmt.Sprintf("%.1f", v))
			} else {
				middle := svg.Round(x + (barWidth-3)/2)
				d.AddLine(middle, y.At(max(b.cell.Min/b.unit, 0)), middle, y.At(min(b.cell.Max/b.unit, y.To)), "whisker")
			}
			x += barWidth
		}
		d.Below((begin+x-3)/2, points[i].Name)
		x = max(x, begin+svg.Letter*float64(len(points[i].Name))-gap/2) + gap
	}
	d.Widen(x)
	if base != "" && y.To >= 1 {
		d.AddLine(svg.Left, y.At(1), d.Width-svg.Right, y.At(1), "one")
	}
	return d
}

// latencies draws the quantiles of a point, a curve per relay. nil if there are none.
func (r *Results) latencies(p Point) *svg.Drawing {
	var metrics []Metric
	for _, name := range []string{p50, p90, p99, p999} {
		if m, ok := p.metric(name); ok {
			metrics = append(metrics, m)
		}
	}
	if len(metrics) < 2 {
		return nil
	}
	return r.curves(p.Name+": latency in ms, less is better", len(metrics), true, func(k, i int) (Cell, string) {
		return r.Cell(p, r.Relays[k].Name, metrics[i]), quantileTitle(metrics[i].Name)
	})
}

// growing draws a metric over the number of connections, a curve per relay.
func (r *Results) growing(points []Point, metric string) *svg.Drawing {
	if len(points) < 2 {
		return nil
	}
	m, _ := points[0].metric(metric)
	return r.curves(m.Title+" by connections, "+wanted(m), len(points), false, func(k, i int) (Cell, string) {
		return r.Cell(points[i], r.Relays[k].Name, m), svg.Thousands(fmt.Sprint(points[i].Connections))
	})
}

// curves draws a curve per relay through n places side by side; at gives the value
// of a relay at a place, and the place's name.
func (r *Results) curves(title string, n int, logarithms bool, at func(relay, place int) (Cell, string)) *svg.Drawing {
	var all []float64
	for k := range r.Relays {
		for i := range n {
			if c, _ := at(k, i); c.Rounds > 0 && c.Min > 0 {
				all = append(all, c.Min, c.Max)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	y := svg.Upward(0, slices.Max(all)*1.05)
	if logarithms {
		y.Logarithms, y.From = true, slices.Min(all)*0.9
	}
	const between = 110.0
	d := svg.Frame(title, float64(n)*between, y)
	for k, relay := range r.Relays {
		var points [][2]float64
		for i := range n {
			c, place := at(k, i)
			x := svg.Left + (float64(i)+0.5)*between
			if k == 0 {
				d.Below(x, place)
			}
			if c.Rounds == 0 || c.Min <= 0 {
				continue
			}
			x += 3 * float64(k-len(r.Relays)/2) // whiskers beside each other
			d.AddLine(svg.Round(x), y.At(c.Min), svg.Round(x), y.At(c.Max), "whisker")
			d.AddDot(svg.Round(x), y.At(c.Median), r.series(k), fmt.Sprintf("%s, %s: %s", relay.Name, place, c))
			points = append(points, [2]float64{svg.Round(x), y.At(c.Median)})
		}
		if len(points) > 1 {
			d.AddCurve(points, r.series(k))
		}
	}
	return d
}

// series is the class of a relay's colour: relatives have like ones, and others take
// what is left.
func (r *Results) series(relay int) string {
	known := []string{"direct", "tprelay", "tprelay-loops", "tprelay-buffered", "haproxy", "haproxy-2threads", "haproxy-copy", "iocopy", "iocopy-nosplice"}
	if i := slices.Index(known, r.Relays[relay].Name); i >= 0 {
		return fmt.Sprintf("s%d", i)
	}
	others := 0
	for _, other := range r.Relays[:relay] {
		if !slices.Contains(known, other.Name) {
			others++
		}
	}
	return fmt.Sprintf("s%d", len(known)+others%3)
}

func wanted(m Metric) string {
	if m.More {
		return "more is better"
	}
	return "less is better"
}
