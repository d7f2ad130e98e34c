package admin_test

import (
	"fmt"
	"net/http/httptest"
	"reflect"
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

// TestEveryStatisticIsAMetric: each number of engine.Stats is the value of one metric.
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
}
