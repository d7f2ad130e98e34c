package output

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/stats/statstest"
)

func pageOf(t *testing.T, r *stats.Results) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageHasABarForEachFigure(t *testing.T) {
	page := pageOf(t, statstest.Example())
	bars := regexp.MustCompile(`<b>([^<]+)</b>.*width: ([0-9.]+)%.*class="figure">([^<]+)<`).FindAllStringSubmatch(page, -1)
	if len(bars) < 40 {
		t.Errorf("%d bars", len(bars))
	}
	for _, bar := range bars {
		if bar[2] == "0" || bar[3] == "-" {
			t.Errorf("%q", bar)
		}
	}
	for _, no := range []string{"NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(page, no) {
			t.Errorf("it has %s", no)
		}
	}
}

func TestPageLoadsNothing(t *testing.T) {
	page := pageOf(t, statstest.Example())
	for _, no := range []string{"<script", "<link", "<img", "@import", "url(", "src=", "href="} {
		if strings.Contains(page, no) {
			t.Errorf("it has %s", no)
		}
	}
}

func TestPageSaysHowAndWhat(t *testing.T) {
	r := statstest.Example()
	r.Verdicts = []string{"bulk-1-up, throughput: required 0.97 pass"}
	page := pageOf(t, r)
	for _, want := range []string{
		"Example CPU", "tpbench compare --relays", "failed: no request was answered", "How it was measured", "payload that arrived at the reader",
		"other programs used 12 % of the machine", "socat is left out", "as &lt;it&gt; is", "required 0.97 pass", "prefers-color-scheme: dark",
		"rr-100 (TCP_RR), 100 concurrent connections, closed loop",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	if lead, first := strings.Index(page, "bulk-1-up: "), strings.Index(page, "<h2>"); lead < 0 || lead > first {
		t.Error("the headline does not come first")
	}
}

func TestPageOfLittle(t *testing.T) {
	r := &stats.Results{Workloads: []string{"rr-1"}, Relays: []stats.Relay{{Name: "direct", Relay: "direct"}}}
	if page := pageOf(t, r); strings.Contains(page, `class="bar"`) {
		t.Error("a plot of nothing")
	}
	r.Runs = []stats.Run{{Round: 1, Workload: "rr-1", Relay: "direct", Figures: scenario.Figures{scenario.Rate: 0, scenario.P50: 0, scenario.P90: 0}}}
	if page := pageOf(t, r); strings.Contains(page, "NaN") {
		t.Error("figures of 0 make no numbers")
	}
}
