package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/netlab"
)

// The programs that may be the two worker.
const (
	Builtin = "builtin"
	Iperf3  = "iperf3"
	Wrk     = "wrk"
)

const (
	relayPort  = 9091
	serverPort = 5201
)

// Driver runs plans.
type Driver struct {
	// Self and TPRelay are the paths of tpbench and of tprelay.
	Self, TPRelay string
	// Command is what --relay-command says.
	Command string
	// With are the programs that send and receive.
	With string
	// Congestion is the congestion control of the lab's hosts, "" for the machine's.
	Congestion string
	// Again is how long runs may be done again of which the machine's host took much.
	Again time.Duration
	// Progress, if not nil, is told before each run: how many are done, and what
	// time is left, about. Of one that is done again, done is all.
	Progress func(s Step, done, all int, left time.Duration)
}

// Run runs the plan and appends the runs to r.Runs. A run that fails is there with
// its error. When ctx ends, Run returns its error, and r has what was measured so far.
func (d *Driver) Run(ctx context.Context, p Plan, r *Results) (err error) {
	steps := p.Steps()
	defer func() {
		if err != nil && len(r.Runs) < len(steps) {
			r.Notes = append(r.Notes, fmt.Sprintf("interrupted after %d of %s", len(r.Runs), plural(len(steps), "run")))
		}
	}()
	left := p.Total()
	var took, planned time.Duration
	for done := 0; done < len(steps); done = len(r.Runs) {
		next := steps[done : done+heatOf(steps[done:])]
		if next[0].Point.Scenario == "scale" && r.Settings.ScaleRate == 0 {
			d.choose(ctx, p, next[0], r)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Once a while was measured, what is left is believed to deviate alike.
		slower := 1.0
		if planned > 20*time.Second {
			slower = float64(took) / float64(planned)
		}
		began, before := time.Now(), p.sum(next)
		runs := d.heat(ctx, p, next, r.Settings.ScaleRate, func(i int) {
			if d.Progress != nil {
				d.Progress(next[i], done+i, len(steps), time.Duration(float64(left-before+p.sum(next[i:]))*slower))
			}
		})
		if ctx.Err() != nil {
			return ctx.Err() // the heat was cut short
		}
		r.Runs = append(r.Runs, runs...)
		took += time.Since(began)
		planned += before
		left -= before
	}
	return d.again(ctx, p, steps, r)
}

// heatOf is how many of the first steps are of one heat.
func heatOf(steps []Step) (n int) {
	for n < len(steps) && steps[n].heat() == steps[0].heat() {
		n++
	}
	return n
}

// heat measures what is compared: in turns, or one after the other. tell is called before each
// is set up.
func (d *Driver) heat(ctx context.Context, p Plan, steps []Step, scale float64, tell func(i int)) (runs []Run) {
	if d.With == Builtin && steps[0].Point.inTurns() {
		return d.takeTurns(ctx, p, steps, tell)
	}
	for i, s := range steps {
		if ctx.Err() != nil {
			break
		}
		tell(i)
		runs = append(runs, d.do(ctx, p, s, scale))
	}
	return runs
}

// again does heats again that the machine's host spoiled, while there is time.
func (d *Driver) again(ctx context.Context, p Plan, steps []Step, r *Results) error {
	began, runs := time.Now(), 0
	defer func() { r.noteAgain(runs, time.Since(began)) }()
	times := map[heat]int{}
	for {
		due := r.due(times)
		left := d.Again - time.Since(began)
		var next []Step
		var before []Run
		for _, i := range due {
			next = append(next, steps[i])
			before = append(before, r.Runs[i])
		}
		if len(due) == 0 || p.sum(next) > left {
			return nil
		}
		times[before[0].heat()]++
		again := d.heat(ctx, p, next, r.Settings.ScaleRate, func(i int) {
			if d.Progress != nil {
				d.Progress(next[i], len(steps), len(steps), d.Again-time.Since(began))
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		runs += len(again)
		if better(again, before) {
			for k, i := range due {
				r.Runs[i] = again[k]
			}
		}
	}
}

// choose finds out whether the machine can do the rate of the scenario scale without
// a relay, and takes less if it cannot.
func (d *Driver) choose(ctx context.Context, p Plan, s Step, r *Results) {
	r.Settings.ScaleRate = scaleRate
	direct, err := relays.Find("direct", "")
	if err != nil {
		return
	}
	s.Relay = Contestant{"direct", direct}
	run := d.do(ctx, p, s, scaleRate)
	for i := 0; i < 3 && run.spoiled(); i++ {
		if again := d.do(ctx, p, s, scaleRate); better([]Run{again}, []Run{run}) {
			run = again
		}
	}
	const enough, part = 0.97, 0.7
	if got := run.Figures[rate]; run.Error == "" && got < enough*scaleRate {
		r.Settings.ScaleRate = max(math.Floor(got*part/1000)*1000, 1000)
		r.Notes = append(r.Notes, fmt.Sprintf("scale: %s requests/s instead of %s, as this machine does no more than %s without a relay",
			number(r.Settings.ScaleRate), number(scaleRate), number(got)))
	}
}

// do does one step by itself.
func (d *Driver) do(ctx context.Context, p Plan, s Step, scale float64) Run {
	// Nothing may hang for ever. Workers give up on connections after a minute.
	limit := 2*p.Estimate(s) + 2*time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took more than %v", limit))
	defer cancel()
	b := d.bed(p, s, scale)
	b.try(func() error { return b.make(ctx) })
	b.try(func() error { return b.figures(ctx, b.found) })
	return b.end(ctx)
}

// why is the cause of an error: the end of the relay, or of the time, if it was that.
func (b *bed) why(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case b.relay != nil && b.relay.Err() != nil:
		return b.relay.Err()
	}
	return err
}

// bed is what one run stands on: three hosts, the relay, and workers at both worker.
type bed struct {
	driver   *Driver
	plan     Plan
	step     Step
	scale    float64 // requests/s in the scenario scale
	warnings []string
	began    time.Time
	used     usage              // while it had its turns
	others   float64            // part of the machine that other programs used in the window
	stolen   float64            // part of it that its host did not give it
	found    map[string]float64 // figures
	err      error              // why there are none

	lab     *netlab.Lab
	relay   *relays.Running
	servers []*worker.Worker
	clients []*worker.Worker
}

func (d *Driver) bed(p Plan, s Step, scale float64) *bed {
	return &bed{driver: d, plan: p, step: s, scale: scale, began: time.Now(), found: map[string]float64{}}
}

// end takes everything away, and gives what was found.
func (b *bed) end(ctx context.Context) Run {
	run := Run{Round: b.step.Round, Point: b.step.Point.Name, Relay: b.step.Relay.Name, Began: b.began}
	err := b.why(ctx, b.err)
	if cleared := b.clear(); err == nil {
		err = cleared
	}
	if err != nil {
		run.Error = oneLine(err)
		return run
	}
	run.Figures, run.Warnings = b.found, b.warnings
	run.Others, run.Stolen = math.Round(1000*b.others)/1000, math.Round(1000*b.stolen)/1000
	return run
}

// server is where the server listens, and with several the first of them.
func (b *bed) server() netip.AddrPort {
	return netip.AddrPortFrom(b.lab.H3.Addr4, serverPort)
}

// make sets everything up but the clients.
func (b *bed) make(ctx context.Context) (err error) {
	if b.lab, err = netlab.New(netlab.Config{}); err != nil {
		return err
	}
	if err := b.setCongestion(); err != nil {
		return err
	}
	processes := 1
	if b.step.Point.Scenario == "many" {
		processes = manyProcesses
	}
	if b.driver.With == Builtin {
		for i := range processes {
			at, err := b.serverAddress(i)
			if err != nil {
				return err
			}
			worker, err := worker.Start(ctx, b.lab.H3, b.driver.Self, worker.Job{Kind: worker.Serve, Address: at, Processors: b.processors()})
			if err != nil {
				return err
			}
			b.servers = append(b.servers, worker)
		}
	}
	b.relay, err = b.step.Relay.Start(ctx, relays.Env{
		Lab: b.lab, Self: b.driver.Self, TPRelay: b.driver.TPRelay, Command: b.driver.Command, Processes: processes,
		Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), relayPort), Server: b.server(),
	})
	return err
}

// processors is how many CPUs an end may use at a time, 0 for all. Who asks and answers in one
// event loop needs one: Go's scheduler would look for work on the other, which is the relay's.
func (b *bed) processors() int {
	if b.step.Point.Scenario == "rr" {
		return 1
	}
	return 0
}

// client starts a client worker, which connects to the relay or through it.
func (b *bed) client(ctx context.Context, job worker.Job) (*worker.Worker, error) {
	if !job.Address.IsValid() {
		job.Address = b.relay.Target()
	}
	job.Request = requestSize
	w, err := worker.Start(ctx, b.lab.H1, b.driver.Self, job)
	if err != nil {
		return nil, err
	}
	b.clients = append(b.clients, w)
	return w, nil
}

// clear takes everything away. The error says so if the relay had ended by itself.
func (b *bed) clear() error {
	var errs []error
	for _, w := range b.clients {
		errs = append(errs, w.Stop())
	}
	if b.relay != nil {
		errs = append(errs, b.relay.Stop())
	}
	for _, w := range b.servers {
		errs = append(errs, w.Stop())
	}
	if b.lab != nil {
		errs = append(errs, b.lab.Close())
	}
	return errors.Join(errs...)
}

func (b *bed) warn(format string, args ...any) {
	b.warnings = append(b.warnings, fmt.Sprintf(format, args...))
}
