package main

import (
	"testing"
	"time"
)

func TestOnlyADelayThatWasAskedForMayBeOurOwn(t *testing.T) {
	var flags pathFlags
	if p := flags.path(); p.Delay != defaultDelay || !p.NetemOnly {
		t.Errorf("by default: %+v", p)
	}
	asked := 3 * time.Millisecond
	flags.Delay = &asked
	if p := flags.path(); p.Delay != asked || p.NetemOnly {
		t.Errorf("asked for %v: %+v", asked, p)
	}
}
