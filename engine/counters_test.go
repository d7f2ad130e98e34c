package engine

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/tprelay/tprelay/tproxy"
)

// TestEveryCounterIsInStats: each number that a loop counts is added to one field of Stats, and
// each field of Stats has such a number, but for DialErrors.
func TestEveryCounterIsInStats(t *testing.T) {
	var c counters
	leaves, want := uint64(0), uint64(0)
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				f := v.Field(i)
				fill(reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()) // also if unexported
			}
		case reflect.Array:
			for i := range v.Len() {
				fill(v.Index(i))
			}
		default:
			leaves++
			want += leaves
			v.Set(reflect.ValueOf(leaves).Convert(v.Type())) // each has another value
		}
	}
	fill(reflect.ValueOf(&c).Elem())

	s := Stats{Ended: map[Reason]uint64{}, SpoofLevels: map[tproxy.SpoofLevel]uint64{}}
	c.add(&s)
	sum := uint64(0)
	for i, v := 0, reflect.ValueOf(s); i < v.NumField(); i++ {
		n := uint64(0)
		switch f := v.Field(i); f.Kind() {
		case reflect.Map:
			for _, key := range f.MapKeys() {
				n += f.MapIndex(key).Uint()
			}
		case reflect.Int64:
			n = uint64(f.Int())
		default:
			n = f.Uint()
		}
		if name := v.Type().Field(i).Name; n == 0 && name != "DialErrors" {
			t.Errorf("nothing is added to Stats.%s", name)
		}
		sum += n
	}
	sum -= s.HandedOver // which is one of Ended, too
	if sum != want {
		t.Errorf("the %d numbers of a loop make %d, and those in Stats %d", leaves, want, sum)
	}
}
