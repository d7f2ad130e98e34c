package bench

import (
	"fmt"
	"math"
	"slices"
)

// bars draws one metric of all points of a scenario: a group per point and a bar per
// relay. With a baseline the bars are ratios to it, and otherwise the figures.
// The whiskers are the least and the most of the rounds. nil if there is no figure.
func (r *Results) bars(points []Point, metric string) *drawing {
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
	title := m.Title + ", " + better(m)
	if base != "" {
		title = fmt.Sprintf("%s, as a multiple of %s's, %s", m.Title, base, better(m))
		top = min(top, tallest) // what is beyond is cut, and says how much it is
	}
	step := niceStep(top / 5)
	y := scale{from: 0, to: math.Ceil(top/step*0.999) * step, low: frameTop + plotHeight, high: frameTop}
	d := frame(title, float64(count)*barWidth+float64(len(points)+1)*gap, y)
	x := frameLeft + gap
	for i, group := range groups {
		if len(group) == 0 {
			continue
		}
		begin := x
		for _, b := range group {
			v := b.cell.Median / b.unit
			shown := min(max(v, 0), y.to)
			at := y.at(shown)
			says := fmt.Sprintf("%s at %s: %s", r.Relays[b.relay].Name, points[i].Name, b.cell)
			d.Boxes = append(d.Boxes, box{round(x), at, barWidth - 3, round(y.low - at), r.series(b.relay), says})
			if v > y.to {
				d.Texts = append(d.Texts, text{round(x + barWidth/2 - 1), frameTop - 2, "middle", "axis", fmt.Sprintf("%.1f", v)})
			} else {
				middle := round(x + (barWidth-3)/2)
				d.Lines = append(d.Lines, line{middle, y.at(max(b.cell.Min/b.unit, 0)), middle, y.at(min(b.cell.Max/b.unit, y.to)), "whisker"})
			}
			x += barWidth
		}
		d.below((begin+x-3)/2, points[i].Name)
		x = max(x, begin+letter*float64(len(points[i].Name))-gap/2) + gap
	}
	d.widen(x)
	if base != "" && y.to >= 1 {
		d.Lines = append(d.Lines, line{frameLeft, y.at(1), d.Width - frameRight, y.at(1), "one"})
	}
	return d
}

// letter is about how wide one is.
const letter = 6.5

// widen makes the drawing wide enough for its labels, which may stand closer than they
// are long.
func (d *drawing) widen(x float64) {
	for _, t := range d.Texts {
		if t.Anchor == "middle" {
			x = max(x, t.X+letter*float64(len(t.Says))/2)
		}
	}
	if x+frameRight > d.Width {
		for i := range d.Lines {
			if d.Lines[i].Class == "grid" {
				d.Lines[i].X2 = x
			}
		}
		d.Width = x + frameRight
	}
}

// latencies draws the quantiles of a point, a curve per relay. nil if there are none.
func (r *Results) latencies(p Point) *drawing {
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
func (r *Results) growing(points []Point, metric string) *drawing {
	if len(points) < 2 {
		return nil
	}
	m, _ := points[0].metric(metric)
	return r.curves(m.Title+" by connections, "+better(m), len(points), false, func(k, i int) (Cell, string) {
		return r.Cell(points[i], r.Relays[k].Name, m), thousands(fmt.Sprint(points[i].Connections))
	})
}

// curves draws a curve per relay through n places side by side; at gives the value
// of a relay at a place, and the place's name.
func (r *Results) curves(title string, n int, logarithms bool, at func(relay, place int) (Cell, string)) *drawing {
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
	y := scale{from: 0, to: slices.Max(all) * 1.05, low: frameTop + plotHeight, high: frameTop}
	if logarithms {
		y.logarithms, y.from = true, slices.Min(all)*0.9
	}
	const between = 110.0
	d := frame(title, float64(n)*between, y)
	for k, relay := range r.Relays {
		var points [][2]float64
		for i := range n {
			c, place := at(k, i)
			x := frameLeft + (float64(i)+0.5)*between
			if k == 0 {
				d.below(x, place)
			}
			if c.Rounds == 0 || c.Min <= 0 {
				continue
			}
			x += 3 * float64(k-len(r.Relays)/2) // whiskers beside each other
			d.Lines = append(d.Lines, line{round(x), y.at(c.Min), round(x), y.at(c.Max), "whisker"})
			d.Dots = append(d.Dots, dot{round(x), y.at(c.Median), r.series(k), fmt.Sprintf("%s, %s: %s", relay.Name, place, c)})
			points = append(points, [2]float64{round(x), y.at(c.Median)})
		}
		if len(points) > 1 {
			d.Curves = append(d.Curves, curve{through(points), r.series(k)})
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

func better(m Metric) string {
	if m.More {
		return "more is better"
	}
	return "less is better"
}
