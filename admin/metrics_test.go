package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"

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
