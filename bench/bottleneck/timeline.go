package bottleneck

import (
	"fmt"
	"math"

	"github.com/tprelay/tprelay/bench/svg"
)

// lineWidth is the width of a time line in pixels. Rates are means over smooth seconds, as they
// jump from sample to sample.
const (
	lineWidth = 760.0
	smooth    = 0.25
)

// series is a curve of a time line: a value per sample, or none.
type series struct {
	name  string
	class string
	at    func(before, now Sample) (float64, bool)
}

// shade marks the times at which something holds.
type shade struct {
	name  string
	class string
	is    func(Sample) bool
}

// timeline is a plot over the time of a transfer.
type timeline struct {
	title  string
	curves []series
	shades []shade
	mark   float64 // a dashed line at this value, unless 0
	least  float64 // the upper end of the axis is at least this
}

// draw draws the time line of the samples, and returns nil if no curve has a value.
func (l timeline) draw(samples []Sample) *svg.Drawing {
	top, points := max(l.mark, l.least), 0
	for _, c := range l.curves {
		for i, s := range samples {
			if v, ok := c.at(samples[max(i-1, 0)], s); ok {
				top = max(top, v)
				points++
			}
		}
	}
	if points == 0 || len(samples) == 0 {
		return nil
	}
	if top <= 0 {
		top = 1
	}
	end := samples[len(samples)-1].At
	step := svg.NiceStep(top / 5)
	y := svg.Upward(0, math.Ceil(top/step*0.999)*step)
	x := svg.Scale{From: 0, To: end, Low: svg.Left, High: svg.Left + lineWidth}
	d := svg.Frame(l.title, lineWidth, y)
	for _, sh := range l.shades {
		for from := 0; from < len(samples); from++ {
			if !sh.is(samples[from]) {
				continue
			}
			to := from
			for to+1 < len(samples) && sh.is(samples[to+1]) {
				to++
			}
			// It held at this sample, and began somewhere after the previous one.
			begin, over := samples[max(from-1, 0)].At, samples[to].At
			d.AddBox(x.At(begin), svg.Top, max(svg.Round(x.At(over)-x.At(begin)), 1), svg.Height, sh.class,
				fmt.Sprintf("%s, %.2f to %.2f s", sh.name, begin, over))
			from = to
		}
	}
	if l.mark > 0 {
		d.AddLine(svg.Left, y.At(l.mark), d.Width-svg.Right, y.At(l.mark), "one")
	}
	for _, c := range l.curves {
		// A curve is interrupted where there is no value.
		var points [][2]float64
		flush := func() {
			if len(points) > 1 {
				d.AddCurve(points, c.class)
			}
			points = nil
		}
		for i, s := range samples {
			v, ok := c.at(samples[max(i-1, 0)], s)
			if !ok {
				flush()
				continue
			}
			points = append(points, [2]float64{x.At(s.At), y.At(v)})
		}
		flush()
	}
	for _, v := range x.Ticks() {
		d.Below(x.At(v), fmt.Sprintf("%g s", v))
	}
	return d
}

// smoothed returns the samples with smoothed rates.
func smoothed(samples []Sample) []Sample {
	smoothed := make([]Sample, len(samples))
	first := 0
	for i, s := range samples {
		for first < i && samples[first].At < s.At-smooth {
			first++
		}
		var before Sample // the last one before the window
		if first > 0 {
			before = samples[first-1]
		}
		s.SenderRate = Interval{before.At, s.At, s.SentBytes - before.SentBytes}.Rate()
		s.ArrivedRate = Interval{before.At, s.At, s.ArrivedBytes - before.ArrivedBytes}.Rate()
		smoothed[i] = s
	}
	return smoothed
}
