// Package svg makes plots as SVG, for pages that are one file and load nothing.
//
// A [Drawing] consists of shapes. [Page] parses the template of a page and adds two templates to
// it: "drawing" writes a drawing, and "style" is the style of all pages.
package svg

import (
	"fmt"
	"math"
	"strings"

	"github.com/tprelay/tprelay/bench/units"
)

// Drawing is a picture in shapes. Lengths are in pixels, y grows downwards.
type Drawing struct {
	Title         string
	Width, Height float64
	Lines         []Line
	Boxes         []Box
	Curves        []Curve
	Texts         []Text
}

// Line is a straight one. Those of class "grid" are below everything else.
type Line struct {
	X1, Y1, X2, Y2 float64
	Class          string
}

// Box is a filled rectangle.
type Box struct {
	X, Y, W, H float64
	Class      string
	Says       string // when pointed at
}

// Curve joins points.
type Curve struct{ Points, Class string }

// Text is a label; Anchor is start, middle or end.
type Text struct {
	X, Y                float64
	Anchor, Class, Says string
}

// The frame around what is plotted.
const (
	Left   = 56.0
	Right  = 12.0
	Top    = 12.0
	Bottom = 34.0
	Height = 200.0 // of what is plotted
)

// Scale maps values to pixels.
type Scale struct {
	From, To   float64 // values
	Low, High  float64 // pixels
	Logarithms bool
}

// Upward is the scale of a plot's y axis.
func Upward(from, to float64) Scale { return Scale{From: from, To: to, Low: Top + Height, High: Top} }

// At is where a value is.
func (s Scale) At(v float64) float64 {
	from, to := s.From, s.To
	if s.Logarithms {
		from, to, v = math.Log(from), math.Log(to), math.Log(v)
	}
	return Round(s.Low + (v-from)/(to-from)*(s.High-s.Low))
}

// Ticks are round values within the scale.
func (s Scale) Ticks() (ticks []float64) {
	if s.Logarithms {
		for decade := math.Pow(10, math.Floor(math.Log10(s.From))); decade <= s.To*1.001; decade *= 10 {
			for _, m := range []float64{1, 2, 5} {
				// Of many decades, these alone.
				if v := m * decade; v >= s.From*0.999 && v <= s.To*1.001 && (m == 1 || s.To/s.From < 300) {
					ticks = append(ticks, v)
				}
			}
		}
		return ticks
	}
	step := NiceStep((s.To - s.From) / 5)
	for i := 0; s.From+float64(i)*step <= s.To*1.001; i++ {
		ticks = append(ticks, s.From+float64(i)*step)
	}
	return ticks
}

// NiceStep is the least of 1, 2, 5 times a power of ten that is not less than x.
func NiceStep(x float64) float64 {
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

// Round is to a tenth of a pixel.
func Round(x float64) float64 { return math.Round(x*10) / 10 }

// Frame begins a drawing: an axis with its values, and room for what is plotted.
func Frame(title string, plotWidth float64, y Scale) *Drawing {
	d := &Drawing{Title: title, Width: Left + plotWidth + Right, Height: Top + Height + Bottom}
	for _, v := range y.Ticks() {
		at := y.At(v)
		d.AddLine(Left, at, d.Width-Right, at, "grid")
		d.AddText(Left-6, at+4, "end", "axis", axisNumber(v))
	}
	return d
}

// Below writes under the plot.
func (d *Drawing) Below(x float64, says string) {
	d.AddText(Round(x), Top+Height+18, "middle", "axis", says)
}

// axisNumber is a number without more digits than it takes.
func axisNumber(v float64) string {
	if v >= 1000 {
		return units.Thousands(fmt.Sprintf("%.0f", v))
	}
	return fmt.Sprintf("%.4g", v)
}

// AddLine adds a line.
func (d *Drawing) AddLine(x1, y1, x2, y2 float64, class string) {
	d.Lines = append(d.Lines, Line{x1, y1, x2, y2, class})
}

// AddBox adds a box.
func (d *Drawing) AddBox(x, y, w, h float64, class, says string) {
	d.Boxes = append(d.Boxes, Box{x, y, w, h, class, says})
}

// AddText adds a label.
func (d *Drawing) AddText(x, y float64, anchor, class, says string) {
	d.Texts = append(d.Texts, Text{x, y, anchor, class, says})
}

// AddCurve adds a curve through points.
func (d *Drawing) AddCurve(points [][2]float64, class string) {
	var b strings.Builder
	for i, p := range points {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%g,%g", p[0], p[1])
	}
	d.Curves = append(d.Curves, Curve{b.String(), class})
}

// Letter is about how wide one is.
const Letter = 6.5
