package bottleneck

import (
	"bytes"
	_ "embed"
	"fmt"
	"math"

	"github.com/tprelay/tprelay/bench/svg"
)

//go:embed plot.svg.tmpl
var plotTemplate string

// plot is a picture of several panels side by side, as a file of its own.
type plot struct {
	Panels        []panel
	Width, Height float64
}

// panel is a drawing with a title above it, and names of its curves.
type panel struct {
	*svg.Drawing
	X      float64
	Legend []plotLegend
}

type plotLegend struct {
	X           float64
	Name, Class string
}

// Classes of curves: the colours of the relays.
func relayClass(relay string) string {
	return map[string]string{Direct: "s0", "tprelay": "s1", Control: "s10", "haproxy": "s9"}[relay]
}

// otherClass is the colour of any other relay.
const otherClass = "s7"

// curve is a line through points: seconds, and a value.
type curve struct {
	name, class string
	points      [][2]float64
}

// axes are what a panel has beside its curves.
type axes struct {
	title      string
	width      float64
	top        float64 // upper end; what is more is drawn there. 0: that of the curves
	mark       float64 // a dashed line at this value, unless 0
	logarithms bool    // from 1 on; what is less is drawn there
	span       [2]float64
	spanSays   string
}

// draw draws a panel.
func (a axes) draw(curves ...curve) panel {
	top, end := max(a.mark, 1), 1.0
	for _, c := range curves {
		for _, p := range c.points {
			top, end = max(top, p[1]), max(end, p[0])
		}
	}
	y := svg.Upward(0, top)
	switch {
	case a.top > 0:
		y.To = a.top
	case a.logarithms:
		y = svg.Upward(1, math.Pow(10, math.Ceil(math.Log10(max(top, 10)))))
		y.Logarithms = true
	default:
		step := svg.NiceStep(top / 5)
		y.To = math.Ceil(top/step*0.999) * step
	}
	x := svg.Scale{From: 0, To: end, Low: svg.Left, High: svg.Left + a.width}
	p := panel{Drawing: svg.Frame(a.title, a.width, y)}
	if a.spanSays != "" {
		p.AddBox(x.At(a.span[0]), svg.Top, x.At(a.span[1])-x.At(a.span[0]), svg.Height, "span", a.spanSays)
	}
	legendAt := svg.Left
	for _, c := range curves {
		if len(c.points) == 0 {
			continue
		}
		points := make([][2]float64, len(c.points))
		for i, at := range c.points {
			points[i] = [2]float64{x.At(at[0]), y.At(min(max(at[1], y.From), y.To))}
		}
		p.AddCurve(points, c.class)
		p.Legend = append(p.Legend, plotLegend{legendAt, c.name, c.class})
		legendAt += 30 + svg.Letter*float64(len(c.name))
	}
	if a.mark > 0 {
		p.AddLine(svg.Left, y.At(a.mark), svg.Left+a.width, y.At(a.mark), "one")
	}
	for _, v := range x.Ticks() {
		p.Below(x.At(v), fmt.Sprintf("%g s", v))
	}
	return p
}

// side puts panels beside each other.
func side(panels ...panel) plot {
	var p plot
	for _, one := range panels {
		one.X = p.Width
		p.Width += one.Drawing.Width
		p.Height = max(p.Height, one.Drawing.Height+plotHead)
		p.Panels = append(p.Panels, one)
	}
	return p
}

// plotHead is the room above a drawing, for title and legend.
const plotHead = 44

func (p plot) svg() ([]byte, error) {
	t, err := svg.Page("plot", plotTemplate)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, p)
	return b.Bytes(), err
}

// line is a curve of samples: of those that have a value, and of these at most 300.
func line(name, class string, samples []Sample, value func(Sample) (float64, bool)) curve {
	const most = 300
	c := curve{name: name, class: class}
	every := max(1, (len(samples)+most-1)/most)
	for i := every / 2; i < len(samples); i += every {
		if v, ok := value(samples[i]); ok {
			c.points = append(c.points, [2]float64{samples[i].At, v})
		}
	}
	return c
}

// plots are the pictures of the page, by file name.
func (d *Document) plots() map[string]plot {
	const kib = 1 << 10
	window := func(s Sample) (float64, bool) {
		if s.Sender == nil {
			return 0, false
		}
		return float64(s.Sender.PeerWindow) / kib, true
	}
	var rates []panel
	var inFlight, delay, windows, stop []curve
	mark := float64(d.Settings.Bottleneck) / 1e6
	for i, m := range d.Runs {
		class, title := relayClass(m.Relay), d.Relays[i].Title
		if class == "" {
			if class = otherClass; i > 4 {
				continue // one token bucket is enough
			}
		}
		if m.Relay == Control {
			title = "tprelay without flow control"
		}
		rates = append(rates, axes{title: title + ", Mbit/s", width: 190, top: 1.5 * float64(d.Settings.Access) / 1e6, mark: mark}.draw(
			line("sender", class, smoothed(m.Samples), func(s Sample) (float64, bool) { return s.SenderRate / 1e6, true }),
			line("arrived", "plain", smoothed(m.Samples), func(s Sample) (float64, bool) { return s.ArrivedRate / 1e6, true })))
		if m.Relay == Control {
			continue // it would leave nothing of the others to be seen
		}
		inFlight = append(inFlight, line(title, class, m.Samples, func(s Sample) (float64, bool) { return float64(s.inFlight()) / kib, true }))
		delay = append(delay, line(title, class, m.timed().Samples, Sample.delay))
		if m.Relay == "tprelay" || m.Relay == "haproxy" {
			windows = append(windows, line(title, class, m.Samples, window))
		}
	}
	for _, c := range d.Calls {
		if class := relayClass(c.Relay); class != "" {
			stop = append(stop, line(c.Title, class, c.Record.Samples, window))
		}
	}
	says := func(name, class string, f func(*Relay) float64) curve {
		return line(name, class, d.of(1, "tprelay").timed().Samples, ofRelay(f))
	}
	const wide, half = 760, 430
	return map[string]plot{
		"rates.svg": side(rates...),
		"whereabouts.svg": side(axes{title: "Sent and not arrived, KiB", width: half}.draw(inFlight...),
			axes{title: "One-way delay, ms", width: half}.draw(delay...)),
		"window.svg": side(axes{title: "Receive window that the sender is told, KiB", width: wide, logarithms: true}.draw(windows...)),
		"stopped.svg": side(axes{
			title: "Receive window that the sender is told, KiB", width: wide, logarithms: true, spanSays: "the receiver has stopped",
			span: [2]float64{(starting + flowing).Seconds(), (starting + flowing + settled + stopped).Seconds()},
		}.draw(stop...)),
		"pending.svg": side(axes{title: "Pending in tprelay, KiB", width: half}.draw(says("pending", "s1", func(r *Relay) float64 { return float64(r.Pending) / kib })),
			axes{title: "Pauses and throttles so far", width: half}.draw(
				says("pauses", "s1", func(r *Relay) float64 { return float64(r.Pauses) }), says("throttles", "s10", func(r *Relay) float64 { return float64(r.Throttles) }))),
	}
}
