package twin

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
)

// config is what the environment says.
type config struct {
	duration time.Duration // 0: the batches of short
	seed     uint64
	race     bool
	script   *repetition
	profile  string
	scripts  int // in a batch
	worlds   int
}

func testRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func configuration(t *testing.T) config {
	t.Helper()
	c := config{seed: rand.Uint64N(1 << 32), race: os.Getenv("TPRELAY_TWIN_RACE") != "", scripts: 50, worlds: 4,
		profile: os.Getenv("TPRELAY_TWIN_PROFILE")}
	var err error
	if text := os.Getenv("TPRELAY_TWIN"); text != "" {
		if c.duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("TPRELAY_TWIN: %v", err)
		}
		c.scripts, c.worlds = 300, 2
	}
	if text := os.Getenv("TPRELAY_TWIN_SEED"); text != "" {
		if c.seed, err = strconv.ParseUint(text, 0, 64); err != nil {
			t.Fatalf("TPRELAY_TWIN_SEED: %v", err)
		}
	}
	if text := os.Getenv("TPRELAY_TWIN_SCRIPT"); text != "" {
		c.script = &repetition{}
		if err := json.Unmarshal([]byte(text), c.script); err != nil {
			t.Fatalf("TPRELAY_TWIN_SCRIPT: %v", err)
		}
		if !c.script.Script.valid() {
			t.Fatal("TPRELAY_TWIN_SCRIPT: does not come to an end by itself")
		}
		c.worlds = 1
	}
	return c
}

// mostFailures end the run; mostShrunk are shrunk.
const (
	mostFailures = 20
	mostShrunk   = 2
)

// TestTwin is described in the package comment.
func TestTwin(t *testing.T) {
	c := configuration(t)
	leak.Check(t)
	texts()
	program := buildProgram(t, c.race)
	say("seed %d", c.seed)
	run := &run{t: t, config: c, counts: newCounts()}
	var worlds []*world
	for range c.worlds {
		worlds = append(worlds, newWorld(t, program, run.counts))
	}
	began := time.Now()
	var wg sync.WaitGroup
	for _, w := range worlds {
		wg.Go(func() { run.work(w, began) })
	}
	wg.Wait()
	if err := publish(run.counts.report(c.seed, time.Since(began), run.failed)); err != nil {
		t.Error(err)
	}
}

// run is a run of the test.
type run struct {
	t      *testing.T
	config config
	counts *counts
	next   atomic.Int64

	mu     sync.Mutex
	failed int
}

// work plays batches until there are enough.
func (r *run) work(w *world, began time.Time) {
	for {
		n := int(r.next.Add(1)) - 1
		c := r.config
		if n > 0 && (c.script != nil || c.duration > 0 && time.Since(began) > c.duration) || c.duration == 0 && n >= len(short) {
			return
		}
		set, scripts := r.draw(n)
		before := time.Now()
		wrong, err := w.batch(set, scripts)
		say("%v: batch %d, %v: %d scripts in %v, %d failed", time.Since(began).Round(time.Second), n, set, len(scripts),
			time.Since(before).Round(100*time.Millisecond), len(wrong))
		if err != nil {
			r.t.Errorf("batch %d of seed %d, %v: %v", n, c.seed, set, err)
		}
		if r.fail(w, wrong) || err != nil {
			return
		}
	}
}

// draw draws the n-th batch.
func (r *run) draw(n int) (setting, []script) {
	if c := r.config.script; c != nil {
		scripts := make([]script, max(50, profiles[c.Profile].crowd))
		for i := range scripts {
			scripts[i] = c.Script
		}
		return c.setting, scripts
	}
	random := rand.New(rand.NewPCG(r.config.seed, uint64(n)))
	set := r.config.setting(n, random)
	scripts := make([]script, r.config.scripts)
	if crowd := profiles[set.Profile].crowd; crowd > 0 {
		scripts = scripts[:min(crowd, len(scripts))]
	}
	for i := range scripts {
		scripts[i] = profiles[set.Profile].draw(random)
		scripts[i].V6 = i%2 == 1
	}
	return set, scripts
}

// fail tells of what is wrong, and reports whether that is enough.
func (r *run) fail(w *world, wrong []judgement) (enough bool) {
	for _, j := range wrong {
		r.mu.Lock()
		r.failed++
		n := r.failed
		r.mu.Unlock()
		if n > mostFailures {
			return true
		}
		say("FAIL: %s, %v:%v\n  again: make twin TWIN_SCRIPT='%s'", j.script.Kind, j.set, j, j.repetition())
		if n <= mostShrunk && r.config.script == nil && profiles[j.set.Profile].crowd == 0 {
			j = w.shrink(j)
		}
		r.t.Errorf("%s, %v:%v\n  again: make twin TWIN_SCRIPT='%s'", j.script.Kind, j.set, j, j.repetition())
	}
	return r.failed >= mostFailures
}
