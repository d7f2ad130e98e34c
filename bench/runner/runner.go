package runner

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
)

// Runner runs plans.
type Runner struct {
	// Self and TPRelay are the paths of tpbench and of tprelay.
	Self, TPRelay string
	// Generator sends and receives in place of clients and servers. Default: nil.
	Generator *scenario.Generator
	// Congestion is the congestion control of the hosts. Default: the machine's.
	Congestion string
	// Again is how long disturbed round groups may be repeated.
	Again time.Duration
	// Progress, if not nil, is called before each run: how many are done, and about how much time
	// is left. Of a run that is repeated, done is all.
	Progress func(s Step, done, all int, left time.Duration)
}

// Run runs the plan and appends the runs to r.Runs. A run that fails is there with its error. When
// ctx ends, Run returns its error, and r has what was measured so far.
func (d *Runner) Run(ctx context.Context, p Plan, r *stats.Results) (err error) {
	steps := p.Steps()
	defer func() {
		if err != nil && len(r.Runs) < len(steps) {
			r.Notes = append(r.Notes, fmt.Sprintf("interrupted after %d of %s", len(r.Runs), units.Plural(len(steps), "run")))
		}
	}()
	left := p.Total()
	var took, planned time.Duration
	for done := 0; done < len(steps); done = len(r.Runs) {
		next := steps[done : done+groupSize(steps[done:])]
		if next[0].Workload.Calibrate && r.Settings.Rate == 0 {
			d.calibrate(ctx, p, next[0], r)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Once a while was measured, the rest is expected to deviate alike.
		slower := 1.0
		if planned > 20*time.Second {
			slower = float64(took) / float64(planned)
		}
		began, before := time.Now(), p.sum(next)
		runs := d.runGroup(ctx, p, next, r.Settings.Rate, func(i int) {
			if d.Progress != nil {
				d.Progress(next[i], done+i, len(steps), time.Duration(float64(left-before+p.sum(next[i:]))*slower))
			}
		})
		if ctx.Err() != nil {
			return ctx.Err() // the group was cut short
		}
		r.Runs = append(r.Runs, runs...)
		took += time.Since(began)
		planned += before
		left -= before
	}
	return d.repeat(ctx, p, steps, r)
}

// groupSize is how many of the first steps are one round group.
func groupSize(steps []Step) (n int) {
	for n < len(steps) && steps[n].group() == steps[0].group() {
		n++
	}
	return n
}

// runGroup measures a round group: in turns, or one relay after the other. rate replaces that of
// calibrated workloads. tell is called before each relay is set up.
func (d *Runner) runGroup(ctx context.Context, p Plan, steps []Step, rate float64, tell func(i int)) (runs []stats.Run) {
	if d.Generator == nil && steps[0].Workload.Turns != nil {
		return d.interleave(ctx, p, steps, tell)
	}
	for i, s := range steps {
		if ctx.Err() != nil {
			break
		}
		tell(i)
		if s.Workload.Calibrate {
			s.Workload.Rate = rate
		}
		runs = append(runs, d.run(ctx, p, s))
	}
	return runs
}

// calibrate finds out whether the machine can do the rate of the workload without a relay, and
// chooses less if it cannot.
func (d *Runner) calibrate(ctx context.Context, p Plan, s Step, r *stats.Results) {
	wanted := s.Workload.Rate
	r.Settings.Rate = wanted
	direct, err := relays.Find("direct", "")
	if err != nil {
		return
	}
	s.Candidate = Candidate{"direct", direct}
	run := d.run(ctx, p, s)
	for i := 0; i < 3 && run.Spoiled(); i++ {
		if again := d.run(ctx, p, s); better([]stats.Run{again}, []stats.Run{run}) {
			run = again
		}
	}
	const enough, part = 0.97, 0.7
	if got := run.Figures[scenario.Rate]; run.Error == "" && got < enough*wanted {
		r.Settings.Rate = max(math.Floor(got*part/1000)*1000, 1000)
		r.Notes = append(r.Notes, fmt.Sprintf("%s: %s requests/s instead of %s, as this machine does no more than %s without a relay",
			s.Workload.Scenario.About().Name, units.Figure(r.Settings.Rate), units.Figure(wanted), units.Figure(got)))
	}
}

// trial is a step while it runs.
type trial struct {
	Step
	*testbed.Testbed
	figures scenario.Figures
	used    testbed.Usage // in its turns
	err     error         // why there are no figures
}

func (d *Runner) trial(p Plan, s Step) *trial {
	return &trial{Step: s, Testbed: testbed.New(testbed.Config{
		Self: d.Self, TPRelay: d.TPRelay, Relay: s.Candidate.Relay, Congestion: d.Congestion,
		Processes: s.Workload.Processes, External: d.Generator != nil, Processors: s.Workload.Processors, WarmUp: p.WarmUp, Window: p.Window,
	})}
}

// try does something if nothing has failed yet, and reports whether that is still so.
func (t *trial) try(do func() error) bool {
	if t.err == nil {
		t.err = do()
	}
	return t.err == nil
}

// run does one step by itself.
func (d *Runner) run(ctx context.Context, p Plan, s Step) stats.Run {
	// Nothing may hang for ever. Workers give up on connections after a minute.
	limit := 2*p.Estimate(s) + 2*time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took more than %v", limit))
	defer cancel()
	t := d.trial(p, s)
	t.try(func() error { return t.SetUp(ctx) })
	if d.Generator != nil {
		t.try(func() (err error) {
			t.figures, err = d.Generator.Measure(ctx, t.Testbed, s.Workload)
			return err
		})
		return t.end(ctx)
	}
	t.try(func() error { return s.Workload.Scenario.Start(ctx, t.Testbed, s.Workload) })
	t.try(func() error {
		settle, window := p.WarmUp, p.Window
		if s.Workload.AtRest {
			settle, window = testbed.SettleTime, testbed.SettleTime
		}
		m, err := t.Count(ctx, settle, window)
		if err != nil {
			return err
		}
		t.figures, err = s.Workload.Scenario.Figures(t.Testbed, s.Workload, m)
		return err
	})
	if s.Workload.AtRest {
		t.Others, t.Stolen = 0, 0 // they take nothing from these figures
	}
	return t.end(ctx)
}

// end takes everything down, and returns what was found.
func (t *trial) end(ctx context.Context) stats.Run {
	run := stats.Run{Round: t.Round, Workload: t.Workload.Name, Relay: t.Candidate.Name, Began: t.Began}
	err := t.Cause(ctx, t.err)
	if closed := t.Close(); err == nil {
		err = closed
	}
	if err != nil {
		run.Error = strings.Join(strings.Fields(err.Error()), " ") // one line
		return run
	}
	run.Figures, run.Warnings = t.figures, t.Warnings
	run.Others, run.Stolen = math.Round(1000*t.Others)/1000, math.Round(1000*t.Stolen)/1000
	return run
}
