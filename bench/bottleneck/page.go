package bottleneck

import (
	_ "embed"
	"fmt"
	"io"

	"github.com/tprelay/tprelay/bench/svg"
	"github.com/tprelay/tprelay/bench/units"
)

//go:embed page.html.tmpl
var page string

// The data of the page's template.
type (
	pageView struct {
		*Comparison
		Title, Date, Path string
		Table             [][]string
		Legend            []string
		Transfers         []transferView
	}
	transferView struct {
		Name, Title, About string
		Lines              []lineView
	}
	lineView struct {
		*svg.Drawing
		Legend []legendView
	}
	legendView struct{ Name, Class string }
)

// HTML writes a page with the table and the time lines of the last round, as one file that
// loads nothing.
func (c *Comparison) HTML(w io.Writer) error {
	t, err := svg.Page("page", page)
	if err != nil {
		return err
	}
	return t.Execute(w, c.view())
}

func (c *Comparison) view() pageView {
	s := c.Settings
	v := pageView{
		Comparison: c, Title: "One transfer through a bottleneck", Date: s.Began.Format("2 January 2006, 15:04"),
		Path: s.String(), Table: c.Rows(), Legend: s.Legend(),
	}
	last := 0
	for _, m := range c.Runs {
		last = max(last, m.Round)
	}
	for _, relay := range c.Relays {
		m := c.of(last, relay.Name)
		if m == nil {
			m = c.of(last-1, relay.Name) // the last round was interrupted
		}
		if m == nil {
			continue
		}
		t := transferView{Name: relay.Name, Title: relay.Title, About: m.Figures.String()}
		samples := smoothed(m.timed().Samples)
		for _, l := range lines() {
			if d := l.draw(samples); d != nil {
				t.Lines = append(t.Lines, lineView{d, l.legend(samples)})
			}
		}
		v.Transfers = append(v.Transfers, t)
	}
	return v
}

// legend names the curves and shades that the time line shows.
func (l timeline) legend(samples []Sample) (names []legendView) {
	for _, c := range l.curves {
		for i, s := range samples {
			if _, ok := c.at(samples[max(i-1, 0)], s); ok {
				names = append(names, legendView{c.name, c.class})
				break
			}
		}
	}
	for _, sh := range l.shades {
		for _, s := range samples {
			if sh.is(s) {
				names = append(names, legendView{sh.name, sh.class})
				break
			}
		}
	}
	return names
}

// String describes the measurement in one line.
func (s Settings) String() string {
	behind := units.Rate(s.Bottleneck).String()
	switch s.Reader {
	case "slow":
		behind = fmt.Sprintf("%v --- h3, which reads %s", units.Rate(s.Access), behind)
	case "stopped":
		behind += " --- h3, which reads nothing"
	default:
		behind += " --- h3"
	}
	text := fmt.Sprintf("h1 --- %v --- h2 --- %s; queues of %g ms", units.Rate(s.Access), behind, s.Queue*1000)
	if s.Delay > 0 {
		text += fmt.Sprintf(", delay of %g ms per link, one way", s.Delay*1000)
	}
	rounds := "one transfer"
	if s.Rounds > 1 {
		rounds = fmt.Sprintf("%d rounds", s.Rounds)
	}
	return fmt.Sprintf("%s; %s of %d s", text, rounds, s.Seconds)
}
