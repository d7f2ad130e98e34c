package bench

import (
	"bytes"
	"encoding/xml"
	"io"
	"regexp"
	"strings"
	"testing"
)

func pageOf(t *testing.T, r *Results) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageHasWellFormedDrawings(t *testing.T) {
	drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(pageOf(t, example()), -1)
	if len(drawings) < 8 {
		t.Errorf("%d drawings", len(drawings))
	}
	for _, d := range drawings {
		shapes := 0
		for dec := xml.NewDecoder(strings.NewReader(d)); ; {
			token, err := dec.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%v in\n%s", err, d)
			}
			if e, ok := token.(xml.StartElement); ok && (e.Name.Local == "rect" || e.Name.Local == "circle") {
				shapes++
			}
		}
		if shapes == 0 || strings.Contains(d, "NaN") || strings.Contains(d, "Inf") || strings.Contains(d, "ZgotmplZ") {
			t.Errorf("%d shapes in\n%s", shapes, d)
		}
	}
}

func TestPageLoadsNothing(t *testing.T) {
	page := pageOf(t, example())
	for _, no := range []string{"<script", "<link", "<img", "@import", "url(", "src=", "href="} {
		if strings.Contains(page, no) {
			t.Errorf("it has %s", no)
		}
	}
}

func TestPageSaysHowAndWhat(t *testing.T) {
	page := pageOf(t, example())
	for _, want := range []string{
		"Example CPU", "tpbench compare --relays", "failed: no request was answered", "How it was measured", "payload that arrived at the reader",
		"other programs used 12 % of the machine", "socat is left out", "as &lt;it&gt; is", "must 0.97 held", "prefers-color-scheme: dark", "haproxy at rr-100: ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestPageOfLittle(t *testing.T) {
	r := &Results{Points: []string{"rr-1"}, Relays: []Relay{{Name: "direct", Peer: "direct"}}}
	if page := pageOf(t, r); strings.Contains(page, "<svg") {
		t.Error("a drawing of nothing")
	}
	r.Runs = []Run{{Round: 1, Point: "rr-1", Relay: "direct", Figures: map[string]float64{rate: 0, p50: 0, p90: 0}}}
	if page := pageOf(t, r); strings.Contains(page, "NaN") {
		t.Error("figures of 0 make no numbers")
	}
}
