package bottleneck

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// steady gives intervals of 0.1 s with these rates, each for a second.
func steady(rates ...float64) (intervals []Interval) {
	for second, rate := range rates {
		for i := range 10 {
			start := float64(second) + float64(i)/10
			intervals = append(intervals, Interval{start, start + 0.1, int64(rate / 80)})
		}
	}
	return intervals
}

func TestSettledIsWhenTheRateStays(t *testing.T) {
	for name, tc := range map[string]struct {
		rates  []float64
		target float64
		want   float64
		ok     bool
	}{
		"at once":                  {[]float64{6e6, 6e6, 6e6}, 6e6, 0, true},
		"after a gulp":             {[]float64{20e6, 6e6, 6e6, 6e6}, 6e6, 1, true},
		"never":                    {[]float64{19e6, 19e6, 19e6}, 6e6, 0, false},
		"falls through the target": {[]float64{20e6, 6e6, 1e6, 0, 0, 0}, 6e6, 0, false},
		"within 10 %":              {[]float64{5.5e6, 6.5e6, 5.5e6}, 6e6, 0, true},
		"stops":                    {[]float64{20e6, 1e6, 0, 0}, 0, 2, true},
		"does not stop":            {[]float64{20e6, 20e6}, 0, 0, false},
		"nothing at all":           {[]float64{0, 0}, 0, 0, true},
		"shorter than it takes":    {nil, 6e6, 0, false},
	} {
		at, ok := Settled(steady(tc.rates...), tc.target)
		if ok != tc.ok || ok && (at < tc.want-0.06 || at > tc.want+0.06) {
			t.Errorf("%s: %g, %v, wanted %g, %v", name, at, ok, tc.want, tc.ok)
		}
	}
}

func TestMostInFlightIsWhatWasSentLessWhatHadArrived(t *testing.T) {
	sent, arrived := steady(8e6, 8e6, 0, 0), steady(4e6, 4e6, 4e6, 4e6)
	if got := MostInFlight(sent, arrived); got != 1_000_000 {
		t.Errorf("%d bytes", got)
	}
	if got := MostInFlight(nil, nil); got != 0 {
		t.Errorf("%d bytes of nothing", got)
	}
}

func TestMedianCountsWhatNeverCameToBeAsWorst(t *testing.T) {
	with, without := func(v float64) Figures { return Figures{Settle: v} }, Figures{}
	for name, tc := range map[string]struct {
		rounds []Figures
		want   float64
		ok     bool
	}{
		"odd":           {[]Figures{with(3), with(1), with(2)}, 2, true},
		"even":          {[]Figures{with(3), with(1)}, 2, true},
		"one of three":  {[]Figures{with(3), without, with(2)}, 3, true},
		"most of three": {[]Figures{with(3), without, without}, 0, false},
		"half":          {[]Figures{with(3), without}, 0, false},
		"no rounds":     {nil, 0, false},
	} {
		if got, ok := median(Settle, tc.rounds); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %g, %v", name, got, ok)
		}
	}
}

func TestSpreadIsTheConfidenceIntervalOfTheMedian(t *testing.T) {
	var rounds []Figures
	for _, v := range []float64{100, 101, 102, 98, 99} {
		rounds = append(rounds, Figures{Settle: v})
	}
	if got := spread(Settle, rounds); got != 0 {
		t.Errorf("of five rounds: %g", got)
	}
	rounds = append(rounds, Figures{Settle: 110})
	if got, want := spread(Settle, rounds), (110-100.5)/100.5; math.Abs(got-want) > 1e-9 {
		t.Errorf("of six rounds: %g, wanted %g", got, want)
	}
	if cell := one("", Settle, "never", func(v float64) string { return fmt.Sprint(v) }).cell(rounds); cell != "100.5 ±9 %" {
		t.Errorf("it is shown as %q", cell)
	}
	if got := spread(Settle, append(rounds, Figures{})); got != 0 {
		t.Errorf("with a round that never settled: %g", got)
	}
}

func TestBytesOutOfOrderAreFound(t *testing.T) {
	var took delays
	b := blocks{clock: clock{time.Now()}, delays: &took}
	block := make([]byte, blockSize)
	stamp(block, 0, 0)
	for _, part := range [][]byte{block[:10], block[10:]} {
		if err := b.take(part); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(took.since(0)); n != 1 {
		t.Errorf("%d delays of a block", n)
	}
	if err := b.take(block); !errors.Is(err, errWrongBytes) {
		t.Errorf("the same block again: %v", err)
	}
}

// example is a comparison of fixed figures.
func example() *Comparison {
	took := 180.0
	record := func(relay *Relay) Record {
		var r Record
		for i := range 40 {
			s := Sample{At: float64(i+1) / 10, SentBytes: int64(i+1) * 70_000, ArrivedBytes: int64(i) * 70_000, SenderRate: 5.6e6, ArrivedRate: 5.6e6, Relay: relay}
			s.Sender = &TCP{CwndBytes: 14480, RTT: 20_000, RwndLimited: uint64(i) * 50_000}
			if i%10 != 3 {
				s.Delay = &took
			}
			r.Samples = append(r.Samples, s)
		}
		return r
	}
	c := &Comparison{
		Settings: Settings{
			Began: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), Command: "tpbench slow", Access: 20e6, Bottleneck: 6e6, Reader: "link",
			Queue: 0.1, Delay: 0.01, Seconds: 10, Skipped: 2, Every: 0.05, Unsent: 16384, Rounds: 2, Watermark: 1 << 20,
		},
		Relays: []Name{{"direct", "no relay"}, {"tprelay", "tprelay, 1 loop"}, {"haproxy", "HAProxy"}, {"socat", "was not measured"}},
	}
	for round := 1; round <= 2; round++ {
		more := float64(round)
		c.Runs = append(c.Runs,
			&Measured{Round: round, Relay: "direct", Record: record(nil), Figures: Figures{SenderRate: 5.7e6, ArrivedRate: 5.7e6, Ratio: 1, Settle: 0.1, DelayMedian: 100, DelayP99: 150, InFlight: 300 << 10}},
			&Measured{Round: round, Relay: "tprelay", Record: record(&Relay{Pending: 40 << 10, Paused: true, Throttled: true}), Figures: Figures{
				SenderRate: 5.7e6, ArrivedRate: 5.6e6, Ratio: 1.02, Settle: more, DelayMedian: 200 + more, DelayP99: 300, InFlight: 200 << 10, PendingMost: 47 << 10, Growth: 400 << 10}},
			&Measured{Round: round, Relay: "haproxy", Record: record(nil), Figures: Figures{SenderRate: 15e6, ArrivedRate: 5.6e6, Ratio: 2.68, DelayMedian: 2500, DelayP99: 4000, InFlight: 7 << 20, Growth: 0}},
		)
		c.relate(round)
	}
	return c
}

var update = flag.Bool("update", false, "write the golden files")

func TestTableIsAsItWas(t *testing.T) {
	var b strings.Builder
	c := example()
	b.WriteString(c.Settings.String() + "\n")
	for _, row := range c.Rows() {
		b.WriteString(strings.Join(row, " | ") + "\n")
	}
	for _, s := range c.Settings.Legend() {
		b.WriteString(s + "\n")
	}
	b.WriteString(c.Runs[1].Figures.String() + "\n" + c.Runs[2].Figures.String() + "\n")
	path := filepath.Join("testdata", "table.golden")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwanted\n%s", b.String(), want)
	}
}

func TestPageHasTimeLines(t *testing.T) {
	var b strings.Builder
	if err := example().HTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(drawings) < 20 {
		t.Errorf("%d drawings", len(drawings))
	}
	for _, d := range drawings {
		for dec := xml.NewDecoder(strings.NewReader(d)); ; {
			if _, err := dec.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%v in\n%s", err, d)
			}
		}
	}
	for _, wrong := range []string{"NaN", "Inf", "ZgotmplZ", "src=", "href="} {
		if strings.Contains(page, wrong) {
			t.Errorf("the page has %s", wrong)
		}
	}
	for _, want := range []string{"paused, 0.10 to 4.00 s", "throttled", "HAProxy", "tpbench slow"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestPageOfNothingIsOne(t *testing.T) {
	var b strings.Builder
	c := &Comparison{Relays: []Name{{"direct", ""}}, Runs: []*Measured{{Round: 1, Relay: "direct"}}}
	if err := c.HTML(&b); err != nil || strings.Contains(b.String(), "NaN") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
