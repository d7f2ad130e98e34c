package pump

import "testing"

// TestRunsAreMeasured: what a run calls for, and when. Each step is some bytes after some
// milliseconds.
func TestRunsAreMeasured(t *testing.T) {
	type step struct {
		after uint32
		bytes int
	}
	repeat := func(n int, s step) (all []step) {
		for range n {
			all = append(all, s)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  RunEvents // in all
		runs  bool
	}{
		{"a message", []step{{0, 1000}}, 0, true},
		{"as much as is metered", []step{{0, probeEvery}}, Moves | Probe, true},
		{"too much to probe", []step{{0, probeUntil}}, Moves, true},
		{"slow", repeat(200, step{1, 125_000}), Moves | Probe, true},
		{"2 Gbit/s", repeat(20, step{1, 256 << 10}), Moves | Probe | IsBulk, true},
		{"nothing", nil, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, now, got := New(), uint32(1000), RunEvents(0)
			for _, s := range c.steps {
				now += s.after
				got |= d.NoteRun(s.bytes, now)
			}
			if got != c.want || d.Runs() != c.runs {
				t.Errorf("events %b, want %b; in a run: %v", got, c.want, d.Runs())
			}
			d.EndRun(now)
			if d.Runs() {
				t.Error("the run has not ended")
			}
		})
	}
}

// TestBulkIsProvenFasterTheSecondTime, as long as the run lasts.
func TestBulkIsProvenFasterTheSecondTime(t *testing.T) {
	d := New()
	if d.NoteRun(provenBytes, 0)&IsBulk == 0 {
		t.Fatal("not proven")
	}
	if d.NoteRun(provenBytes/8, 1)&IsBulk == 0 {
		t.Error("an eighth is not enough")
	}
	d.EndRun(2)
	if d.NoteRun(provenBytes/8, 2)&IsBulk != 0 {
		t.Error("an eighth is enough in a new run")
	}
}

// TestSettledRunIsNotProbed: its sink was looked at while it began.
func TestSettledRunIsNotProbed(t *testing.T) {
	d := New()
	d.NoteRun(1, 0)
	if d.NoteRun(provenBytes, 10_000)&IsBulk != 0 || d.phase != settled {
		t.Fatalf("phase %d", d.phase)
	}
	if d.NoteRun(2*probeEvery, 10_001)&Probe != 0 {
		t.Error("it is probed again")
	}
}

// TestModeratedAndThrottledAreNotMeasured: their rate is known, or is not theirs.
func TestModeratedAndThrottledAreNotMeasured(t *testing.T) {
	for _, f := range []Flags{Moderated, Throttled} {
		d := New()
		d.Set(f)
		if d.NoteRun(1<<20, 0) != 0 || d.Runs() {
			t.Errorf("%v is measured", &d)
		}
	}
}

// TestReplyIsTimedFromTheRunsBeginning, if that is known.
func TestReplyIsTimedFromTheRunsBeginning(t *testing.T) {
	d := New()
	d.NoteRun(100, 1000)
	d.NoteRun(100, 1010)
	if took, known := d.EndRun(1030); took != 30 || !known {
		t.Errorf("%d ms, known %v", took, known)
	}
	if _, known := d.EndRun(1040); known {
		t.Error("a run that is not there took some time")
	}
}
