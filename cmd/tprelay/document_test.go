package main

import (
	"io"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tprelay/tprelay/admin"
	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// TestOperatorsGuideListsEveryMetricAndField: docs/operate.md has a row for every metric and
// for every field of the access log, and for none that do not exist.
func TestOperatorsGuideListsEveryMetricAndField(t *testing.T) {
	text, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(text)

	listed := submatches("(?m)^\\| `(tprelay_[a-z_]+)(?:\\{.*\\})?` \\|", guide)
	if want := metricNames(t); !slices.Equal(listed, want) {
		t.Errorf("metrics: %v\nin the guide: %v", want, listed)
	}

	_, section, _ := strings.Cut(guide, "### Access log\n")
	section, _, _ = strings.Cut(section, "\n### ")
	var fields []string
	for _, row := range submatches("(?m)^\\| (`[^|]*`) \\|", section) {
		fields = append(fields, submatches("`([^`]*)`", row)...)
	}
	slices.Sort(fields)
	want := jsonFields(reflect.TypeFor[accessLine](), map[string]bool{})
	if !slices.Equal(fields, want) {
		t.Errorf("fields of the access log: %v\nin the guide: %v", want, fields)
	}
}

// submatches are what the parentheses of pattern match in text, sorted.
func submatches(pattern, text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return found
}

// everything is a relay that has something to count under every label.
type everything struct{}

func (everything) Stats() engine.Stats {
	return engine.Stats{
		Ended:       map[engine.Reason]uint64{engine.ReasonEOF: 1},
		DialErrors:  map[string]uint64{"ECONNREFUSED": 1},
		SpoofLevels: map[tproxy.SpoofLevel]uint64{tproxy.LevelFull: 1},
	}
}

func (everything) Pairs(func(engine.PairInfo) bool) error { return nil }

// metricNames are the names of tprelay's own metrics, sorted.
func metricNames(t *testing.T) []string {
	queue := newLogQueue(io.Discard)
	defer queue.close(logPatience)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil)
	admin.Handler(everything{}, admin.Options{Metrics: []prometheus.Collector{queue.metric()}}).ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("/metrics: status %d", w.Code)
	}
	return submatches("(?m)^# TYPE (tprelay_[a-z_]+) ", w.Body.String())
}

// jsonFields are the names of the fields of a structure and of those in it, each once, sorted.
func jsonFields(structure reflect.Type, names map[string]bool) []string {
	for _, f := range reflect.VisibleFields(structure) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		names[name] = true
		if f.Type.Kind() == reflect.Struct {
			jsonFields(f.Type, names)
		}
	}
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
