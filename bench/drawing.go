package bench

import (
	"fmt"
	"math"
	"strings"
)

// drawing is a picture in shapes, for the page's template to write as SVG. Lengths
// are in pixels, y grows downwards.
type drawing struct {
	Title         string
	Width, Height float64
	Lines         []line
	Boxes         []box
	Curves        []curve
	Dots          []dot
	Texts         []text
}

type line struct {
	X1, Y1, X2, Y2 float64
	Class          string
}

type box struct {
	X, Y, W, H float64
	Class      string
	Says       string // when pointed at
}

type curve struct{ Points, Class string }

type dot struct {
	X, Y        float64
	Class, Says string
}

type text struct {
	X, Y                float64
	Anchor, Class, Says string
}

// The frame around what is plotted.
const (
	frameLeft   = 56.0
	frameRight  = 12.0
	frameTop    = 12.0
	frameBottom = 34.0
	plotHeight  = 200.0
)

// scale maps values to pixels.
type scale struct {
	from, to   float64 // values
	low, high  float64 // pixels
	logarithms bool
}

func (s scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.logarithms {
		from, to, v = math.Log(from), math.Log(to), math.Log(v)
	}
	return round(s.low + (v-from)/(to-from)*(s.high-s.low))
}

// ticks are round values within the scale.
func (s scale) ticks() (ticks []float64) {
	if s.logarithms {
		for decade := math.Pow(10, math.Floor(math.Log10(s.from))); decade <= s.to*1.001; decade *= 10 {
			for _, m := range []float64{1, 2, 5} {
				// Of many decades, these alone.
				if v := m * decade; v >= s.from*0.999 && v <= s.to*1.001 && (m == 1 || s.to/s.from < 300) {
					ticks = append(ticks, v)
				}
			}
		}
		return ticks
	}
	step := niceStep((s.to - s.from) / 5)
	for i := 0; s.from+float64(i)*step <= s.to*1.001; i++ {
		ticks = append(ticks, s.from+float64(i)*step)
	}
	return ticks
}

// niceStep is the least of 1, 2, 5 times a power of ten that is not less than x.
func niceStep(x float64) float64 {
	if x <= 0 {
		return 1
	}
	decade := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if m*decade >= x*0.999 {
			return m * decade
		}
	}
	return 10 * decade
}

func round(x float64) float64 { return math.Round(x*10) / 10 }

// frame begins a drawing: an axis with its values, and room for what is plotted.
func frame(title string, plotWidth float64, y scale) *drawing {
	d := &drawing{Title: title, Width: frameLeft + plotWidth + frameRight, Height: frameTop + plotHeight + frameBottom}
	for _, v := range y.ticks() {
		at := y.at(v)
		d.Lines = append(d.Lines, line{frameLeft, at, d.Width - frameRight, at, "grid"})
		d.Texts = append(d.Texts, text{frameLeft - 6, at + 4, "end", "axis", axisNumber(v)})
	}
	return d
}

// below writes under the plot.
func (d *drawing) below(x float64, says string) {
	d.Texts = append(d.Texts, text{round(x), frameTop + plotHeight + 18, "middle", "axis", says})
}

// axisNumber is a number without more digits than it takes.
func axisNumber(v float64) string {
	if v >= 1000 {
		return thousands(fmt.Sprintf("%.0f", v))
	}
	return fmt.Sprintf("%.4g", v)
}

// through joins points to a curve's.
func through(points [][2]float64) string {
	var b strings.Builder
	for i, p := range points {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%g,%g", p[0], p[1])
	}
	return b.String()
}
