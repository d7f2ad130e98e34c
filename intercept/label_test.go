package intercept

import (
	"strings"
	"testing"
)

func TestLabelGoesBeforeEachReadInBothDirections(t *testing.T) {
	d := Label("> ").Open(testPair)
	for _, h := range []Handler{d.Upstream, d.Downstream} {
		got, _ := drive(t, h, []byte("abc"), single)
		if string(got) != "> a> b> c" {
			t.Errorf("got %q", got)
		}
		if got, _ := drive(t, h, nil, whole); len(got) != 0 {
			t.Errorf("an empty stream became %q", got)
		}
	}
}

func TestEmptyLabelAndNoFunctionLeavePairsToSplice(t *testing.T) {
	for _, i := range []Interceptor{Label(""), OnRead(nil)} {
		if d := i.Open(testPair); d.Upstream != nil || d.Downstream != nil || d.Refuse {
			t.Errorf("%T decided %+v", i, d)
		}
	}
}

func TestLabelAndOnReadDoNotAllocate(t *testing.T) {
	data := []byte(strings.Repeat("x", 1000))
	passesWithoutAllocation(t, Label("label").Open(testPair).Upstream, data)
	passesWithoutAllocation(t, OnRead(func(b []byte) []byte { return b }).Open(testPair).Upstream, data)
}
