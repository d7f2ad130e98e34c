package twin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

// world is two labs: one with a router in the middle, one with the relay.
type world struct {
	program string
	dir     string
	router  *stage
	relayed *stage
	mode    string // in which the relay's lab diverts
	counts  *counts
}

// buildProgram builds the relay's program.
func buildProgram(t *testing.T, race bool) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tprelay")
	args := []string{"build", "-o", program}
	if race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/tprelay/tprelay/cmd/tprelay")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// newWorld makes the labs. They are gone when the test is over.
func newWorld(t *testing.T, program string, c *counts) *world {
	t.Helper()
	w := &world{program: program, dir: t.TempDir(), router: &stage{}, relayed: &stage{relayed: true}, counts: c}
	for _, s := range []*stage{w.router, w.relayed} {
		s.lab = netlabtest.New(t, netlab.Config{})
		if err := s.limits(false); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// limits sets the limits of the hosts' socket buffers.
func (s *stage) limits(narrow bool) error {
	rmem, wmem := "4096 131072 6291456", "4096 16384 4194304"
	if narrow {
		rmem, wmem = "4096 131072 262144", "4096 16384 262144"
	}
	for _, h := range []*netlab.Host{s.lab.H1, s.lab.H2, s.lab.H3} {
		if err := errors.Join(h.SetSysctl("net.ipv4.tcp_rmem", rmem), h.SetSysctl("net.ipv4.tcp_wmem", wmem)); err != nil {
			return err
		}
	}
	return nil
}

// played is what came of a batch: by script, then by connection.
type played struct {
	direct, relay [][]outcome
}

// play plays scripts in both labs at the same time. An error says that the batch itself failed: it
// could not be played, or the relay did something wrong that no script saw.
func (w *world) play(set setting, scripts []script) (p played, err error) {
	profile := profiles[set.Profile]
	w.relayed.handled = set.Path == handler
	for _, s := range []*stage{w.router, w.relayed} {
		if err := s.limits(profile.narrow); err != nil {
			return p, err
		}
	}
	if w.mode != set.Mode {
		if err := divert(w.relayed.lab, w.program, w.dir, set.Mode); err != nil {
			return p, err
		}
		w.mode = set.Mode
	}
	r, err := startRelay(w.relayed.lab, w.program, w.dir, set)
	if err != nil {
		return p, err
	}
	faults := make(chan error, 1)
	go func() {
		time.Sleep(faultAfter) // the batch is under way
		faults <- set.Fault.injectInto(r)
	}()
	relayed := make(chan error, 1)
	go func() {
		var err error
		p.relay, err = w.relayed.playThrough(set, scripts)
		relayed <- err
	}()
	p.direct, err = w.router.playThrough(set, scripts)
	err = errors.Join(err, <-relayed, <-faults)
	w.counts.fault(set.Fault)
	return p, errors.Join(err, r.empty(), r.stop())
}

// faultAfter is when in a batch the fault happens.
const faultAfter = 1200 * time.Millisecond

// playThrough plays scripts in one lab, through a fault of its links.
func (s *stage) playThrough(set setting, scripts []script) ([][]outcome, error) {
	faults := make(chan error, 1)
	go func() {
		var err error
		if set.Fault == outage {
			// A connect(2) on a link that is down fails at once.
			time.Sleep(time.Duration(len(scripts))*stagger + 300*time.Millisecond)
			err = cut(s.lab, []string{netlab.Left, netlab.Right}[len(scripts)%2])
		}
		faults <- err
	}()
	outcomes, errs := s.play(scripts, set.Fault.allowance())
	return outcomes, errors.Join(append(errs, <-faults)...)
}

// judgement is what is wrong with a script.
type judgement struct {
	set      setting
	script   script
	findings []finding
	direct   []outcome
	relay    []outcome
}

func (j judgement) String() string {
	text := ""
	for _, f := range j.findings {
		text += "\n  " + f.what
	}
	for i := range j.relay {
		text += fmt.Sprintf("\n  directly:  client %v\n             server %v", j.direct[i].Client, j.direct[i].Server)
		text += fmt.Sprintf("\n  the relay: client %v\n             server %v", j.relay[i].Client, j.relay[i].Server)
	}
	return text
}

// judge finds what is wrong with the outcomes of a script.
func (w *world) judge(set setting, c script, direct, relay []outcome) (all []finding) {
	for i := range relay {
		k := breach
		if relay[i].cutAsleep() {
			k = slow
		}
		for _, what := range relay[i].breaches() {
			all = append(all, finding{"through the relay: " + what, k})
		}
		for _, what := range direct[i].breaches() {
			all = append(all, finding{"through the router: " + what, breach})
		}
		if len(all) == 0 {
			all = append(all, compare(c, set, direct[i], relay[i], w.counts.allowed)...)
		}
	}
	return all
}

// Further tries before a difference counts.
const (
	samples = 6 // of the router, for what timing decides there too
	again   = 2 // of both, for calls that waited too long
)

// batch plays scripts and gives those with which something is wrong.
func (w *world) batch(set setting, scripts []script) (wrong []judgement, err error) {
	p, err := w.play(set, scripts)
	if err != nil {
		return nil, err
	}
	w.counts.add(set, scripts, p)
	var differ, slower []judgement
	for i, c := range scripts {
		found := w.judge(set, c, p.direct[i], p.relay[i])
		if len(found) == 0 {
			continue
		}
		j := judgement{set, c, found, p.direct[i], p.relay[i]}
		switch worst(found) {
		case breach:
			wrong = append(wrong, j)
		case difference:
			differ = append(differ, j)
		case slow:
			slower = append(slower, j)
		}
	}
	if differ, err = w.resample(set, differ); err != nil {
		return nil, err
	}
	for range again {
		if slower, err = w.retry(set, scripts, slower); err != nil {
			return nil, err
		}
	}
	return append(append(wrong, differ...), slower...), nil
}

func worst(found []finding) kind {
	k := slow
	for _, f := range found {
		k = min(k, f.kind)
	}
	return k
}

// resample plays scripts through the router again, and leaves those of which the relay's outcome is
// none of a router's.
func (w *world) resample(set setting, differ []judgement) (left []judgement, err error) {
	left = differ
	for range samples {
		if len(left) == 0 {
			break
		}
		var scripts []script
		for _, j := range left {
			scripts = append(scripts, j.script)
		}
		outcomes, err := w.router.playThrough(set, scripts)
		if err != nil {
			return nil, err
		}
		differ, left = left, nil
		for i, j := range differ {
			if found := w.judge(set, j.script, outcomes[i], j.relay); len(found) > 0 && worst(found) != slow {
				left = append(left, j)
			} else {
				w.counts.explain()
			}
		}
	}
	return left, nil
}

// retry plays scripts in both labs again, and leaves those with which something is wrong again. A
// crowd is played as a whole: what goes wrong in it need not go wrong with the same script.
func (w *world) retry(set setting, scripts []script, slower []judgement) (left []judgement, err error) {
	if len(slower) == 0 {
		return nil, nil
	}
	if profiles[set.Profile].crowd == 0 {
		scripts = nil
		for _, j := range slower {
			scripts = append(scripts, j.script)
		}
	}
	p, err := w.play(set, scripts)
	if err != nil {
		return nil, err
	}
	for i, c := range scripts {
		if found := w.judge(set, c, p.direct[i], p.relay[i]); len(found) > 0 && worst(found) != difference {
			left = append(left, judgement{set, c, found, p.direct[i], p.relay[i]})
		}
	}
	w.counts.late(len(slower) - len(left))
	return left, nil
}

// say prints a line of how it goes.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "twin: "+format+"\n", args...) }
