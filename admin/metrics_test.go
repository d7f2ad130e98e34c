package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
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

// counted is a relay that has counted this.
type counted engine.Stats

func (c counted) Stats() engine.Stats                  { return engine.Stats(c) }
func (counted) Pairs(func(engine.PairInfo) bool) error { return nil }

// TestPageShowsNumbersThatThereAre: what the page reads from /stats is there, and none is named
// twice.
func TestPageShowsNumbersThatThereAre(t *testing.T) {
	w := httptest.NewRecorder()
	admin.Handler(counted{}, admin.Options{}).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/", nil))
	_, rest, _ := strings.Cut(w.Body.String(), "const numbers = ")
	text, _, ok := strings.Cut(rest, "; //")
	var tiles [][3]any
	if err := json.Unmarshal([]byte(text), &tiles); !ok || err != nil || len(tiles) < 5 {
		t.Fatalf("%v, %d tiles in %q", err, len(tiles), text)
	}
	titles := map[any]bool{}
	for _, tile := range tiles {
		if f, ok := reflect.TypeFor[engine.Stats]().FieldByName(tile[0].(string)); !ok || f.Type.Kind() == reflect.Map {
			t.Errorf("the page shows %v, which is no number of engine.Stats", tile[0])
		}
		if titles[tile[1]] {
			t.Errorf("two tiles are called %v", tile[1])
		}
		titles[tile[1]] = true
	}
}

// TestEveryStatisticIsAMetric: each number of engine.Stats is the value of one metric. A counter's
// name ends in _total, and no other does.
func TestEveryStatisticIsAMetric(t *testing.T) {
	s := engine.Stats{
		Ended:       map[engine.Reason]uint64{engine.ReasonEOF: 987_001},
		DialErrors:  map[string]uint64{"ECONNREFUSED": 987_002},
		SpoofLevels: map[tproxy.SpoofLevel]uint64{tproxy.LevelIP: 987_003},
	}
	want := map[string]string{"987001": "Ended", "987002": "DialErrors", "987003": "SpoofLevels"}
	for i, v := 0, reflect.ValueOf(&s).Elem(); i < v.NumField(); i++ {
		if f := v.Field(i); f.Kind() != reflect.Map {
			n := 876_000 + i
			f.Set(reflect.ValueOf(n).Convert(f.Type()))
			want[fmt.Sprint(n)] = v.Type().Field(i).Name
		}
	}
	w := httptest.NewRecorder()
	admin.Handler(counted(s), admin.Options{}).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil))
	for value, name := range want {
		if n := strings.Count(w.Body.String(), " "+value+"\n"); n != 1 {
			t.Errorf("engine.Stats.%s is the value of %d metrics, want 1", name, n)
		}
	}
	kinds := regexp.MustCompile("(?m)^# TYPE (tprelay_[a-z_]+) (counter|gauge)$").FindAllStringSubmatch(w.Body.String(), -1)
	if len(kinds) < 20 {
		t.Errorf("only %d metrics", len(kinds))
	}
	for _, kind := range kinds {
		if strings.HasSuffix(kind[1], "_total") != (kind[2] == "counter") {
			t.Errorf("%s is a %s", kind[1], kind[2])
		}
	}
}

// TestEveryLabelIsThereFromTheStart: increase() sees the first event only if the counter was there
// before it.
func TestEveryLabelIsThereFromTheStart(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(admin.Collector(counted{}))
	for r := engine.ReasonEOF; r <= engine.ReasonHandedOver; r++ {
		if n, ok := values(t, registry)["tprelay_ended_total "+r.String()]; !ok || n != 0 {
			t.Errorf("reason %v: %v, %v", r, n, ok)
		}
	}
	for _, name := range []string{
		"tprelay_dial_errors_total ECONNREFUSED", "tprelay_dial_errors_total ETIMEDOUT", "tprelay_dial_errors_total EHOSTUNREACH",
		"tprelay_spoof_total none", "tprelay_spoof_total ip", "tprelay_spoof_total full", "tprelay_delivered_bytes_total splice upstream",
	} {
		if n, ok := values(t, registry)[name]; !ok || n != 0 {
			t.Errorf("%s: %v, %v", name, n, ok)
		}
	}
	for name := range values(t, registry) {
		if strings.HasSuffix(name, " none") && !strings.Contains(name, "spoof") || strings.HasSuffix(name, " unknown") {
			t.Errorf("%s is there", name)
		}
	}
}

// TestCollectorsOfSeveralEngines: each one's numbers have its label, and an errno that is not
// expected is not lost.
func TestCollectorsOfSeveralEngines(t *testing.T) {
	registry := prometheus.NewRegistry()
	for name, s := range map[string]engine.Stats{
		"a": {Accepted: 5, Ended: map[engine.Reason]uint64{engine.ReasonEOF: 3}},
		"b": {DialErrors: map[string]uint64{"ECONNREFUSED": 2, "EXDEV": 1}},
	} {
		prometheus.WrapRegistererWith(prometheus.Labels{"engine": name}, registry).MustRegister(admin.Collector(counted(s)))
	}
	got := values(t, registry)
	for name, want := range map[string]float64{
		"tprelay_accepted_total a": 5, "tprelay_accepted_total b": 0,
		"tprelay_ended_total a eof": 3, "tprelay_ended_total b eof": 0,
		"tprelay_dial_errors_total a ECONNREFUSED": 0, "tprelay_dial_errors_total b ECONNREFUSED": 2, "tprelay_dial_errors_total b EXDEV": 1,
	} {
		sorted := strings.Fields(name)
		slices.Sort(sorted[1:])
		if n, ok := got[strings.Join(sorted, " ")]; !ok || n != want {
			t.Errorf("%s: %v, %v, want %v", name, n, ok, want)
		}
	}
	if _, ok := got["tprelay_dial_errors_total EXDEV a"]; ok {
		t.Error("an errno of one engine is counted for the other")
	}
}

// values are the values that a registry has, by name and sorted label values.
func values(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			slices.Sort(labels)
			all[strings.Join(append([]string{f.GetName()}, labels...), " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}
