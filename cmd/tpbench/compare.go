package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/output"
	"github.com/tprelay/tprelay/bench/runner"
	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/targets"
	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab"
)

// builtinEnds is --with for the benchmark's own clients and servers.
const builtinEnds = "builtin"

// compareCmd is tpbench compare.
type compareCmd struct {
	Relays       []string       `placeholder:"NAME,..." help:"Relays to measure, see --list. A relay that is named twice is measured twice. all: every relay. Default: those that --list marks."`
	Scenarios    []string       `placeholder:"NAME,..." help:"Scenarios: bulk, rr, light, cps, idle, slow, mixed, scale, many. Default: all."`
	Only         []string       `placeholder:"WORKLOAD,..." help:"Measure only these workloads of the scenarios, see --list."`
	Rounds       int            `placeholder:"6" help:"Number of rounds; the median counts. Default: 6, which confidence intervals need, and 3 where only memory is measured."`
	Seconds      float64        `placeholder:"4" help:"Length of each window."`
	Warmup       time.Duration  `default:"1s" help:"Time between the last connection and the window."`
	Again        *time.Duration `placeholder:"DURATION" help:"Time at the end for repeating rounds in which the host of this virtual machine took more than 2 % of the CPU time. Default: half of the time of the others."`
	Baseline     string         `placeholder:"haproxy" help:"Relay that the ratios refer to. Default: haproxy, or the first one if it is not measured."`
	With         string         `enum:"builtin,iperf3,wrk" default:"builtin" help:"Clients and servers: ${enum}. iperf3 measures bulk only; wrk measures rr only, with nginx as the server."`
	Congestion   string         `placeholder:"NAME" help:"Congestion control of all TCP connections in the lab. Default: cubic, also if the machine's default is another."`
	RelayCommand string         `placeholder:"CMD" help:"${relay_command}"`
	TPRelay      string         `name:"tprelay" placeholder:"PATH" help:"The tprelay program. Default: the one beside tpbench, otherwise the one in PATH."`
	Out          string         `placeholder:"DIR" help:"Write the raw figures (JSON and benchstat) and the tables to this directory. tpbench report DIR makes a page from them. Default: none."`
	JSON         bool           `name:"json" help:"Print all raw figures as JSON instead of tables."`
	Quick        bool           `help:"Measure only a few workloads and relays, in two rounds of two seconds."`
	Self         bool           `help:"Measure tprelay against itself, to see how far the figures can be trusted."`
	Check        bool           `help:"Check the project's targets, in windows of 1.2 s and in 20 rounds where targets compare relays. The exit status is 1 if one is missed. --rounds changes both numbers of rounds."`
	List         bool           `help:"List relays and workloads; measure nothing."`
}

// Run measures, and prints the results.
func (c *compareCmd) Run(command *kong.Context) error {
	if c.List {
		return list(command.Stdout, c.RelayCommand)
	}
	all, err := targets.All()
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	plan, results, err := c.plan(all)
	if err != nil {
		return err
	}
	results.Settings.Command = commandLine(command.Args)
	if c.Out != "" {
		if err := output.MakeDir(c.Out); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	run := &runner.Runner{Generator: c.generator(), Congestion: results.Settings.Congestion}
	if run.Self, err = ownPath(); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if err := c.reduce(&plan, results, run); err != nil {
		return err
	}
	for _, note := range results.Notes {
		fmt.Fprintln(command.Stderr, note)
	}
	ctx, stop := interruptible()
	defer stop()

	if run.Again = plan.Total() / 2; c.Again != nil {
		run.Again = *c.Again
	}
	results.Machine = stats.ThisMachine()
	p := newProgress(command.Stderr)
	p.step(fmt.Sprintf("%d runs, about %s", len(plan.Steps()), formatLeft(plan.Total())))
	run.Progress = func(s runner.Step, done, all int, left time.Duration) {
		what := fmt.Sprintf("%s, %s, round %d", s.Workload.Name, s.Candidate.Name, s.Round)
		if done == all {
			p.step(fmt.Sprintf("repeated, as the machine's host took CPU time: %s; at most %s left", what, formatLeft(left)))
			return
		}
		p.step(fmt.Sprintf("%d of %d: %s; %s left", done+1, all, what, formatLeft(left)))
	}
	err = run.Run(ctx, plan, results)
	p.clear()
	interrupted := ctx.Err() != nil
	if err != nil && !interrupted {
		return fmt.Errorf("compare: %w", err)
	}
	var verdicts []targets.Verdict
	if c.Check {
		verdicts = targets.Judge(results, all)
		for _, v := range verdicts {
			results.Verdicts = append(results.Verdicts, v.String())
		}
	}
	if err := c.tell(command.Stdout, results); err != nil {
		return err
	}
	if interrupted {
		return errors.New("interrupted")
	}
	if failed := targets.Failed(verdicts); failed > 0 {
		return fmt.Errorf("compare: targets that are missed: %d", failed)
	}
	return nil
}

// check refuses flags that are wrong or do not go together.
func (c *compareCmd) check() error {
	switch {
	case c.Rounds < 0 || c.Rounds > 100:
		return cli.Usagef("--rounds %d: must be between 1 and 100", c.Rounds)
	case c.Seconds != 0 && !(c.Seconds >= 0.1 && c.Seconds <= 600):
		return cli.Usagef("--seconds %g: must be between 0.1 and 600", c.Seconds)
	case c.Warmup < 0 || c.Warmup > 10*time.Minute:
		return cli.Usagef("--warmup %v: must be between 0 and 10m", c.Warmup)
	case c.Again != nil && *c.Again < 0:
		return cli.Usagef("--again %v: must not be negative", *c.Again)
	case c.Check && (c.Self || c.Quick || c.With != builtinEnds || len(c.Relays)+len(c.Scenarios)+len(c.Only) > 0):
		return cli.Usagef("--check says itself what is measured: leave out --relays, --scenarios, --only, --with, --quick and --self")
	}
	return nil
}

// generator is what --with names, nil for the benchmark's own clients and servers.
func (c *compareCmd) generator() *scenario.Generator {
	for _, g := range scenario.Generators() {
		if g.Name == c.With {
			return &g
		}
	}
	return nil
}

// defaults fills in the flags that were not given.
func (c *compareCmd) defaults() {
	rounds, seconds := 6, 4.0
	switch {
	case c.Quick:
		rounds, seconds = 2, 2
		if len(c.Relays) == 0 && !c.Self {
			c.Relays = []string{"direct", "tprelay", "haproxy", "iocopy"}
		}
		if len(c.Scenarios) == 0 && len(c.Only) == 0 {
			c.Only = []string{"bulk-1-up", "rr-100", "rr-2000", "cps-50", "idle-1000"}
		}
	case c.Check:
		rounds, seconds = 3, 1.2
	}
	if c.Rounds == 0 {
		c.Rounds = rounds
	}
	if c.Seconds == 0 {
		c.Seconds = seconds
	}
	if c.Self {
		c.Relays = []string{"tprelay", "tprelay"}
	}
}

// plan is what the flags ask for, and results that are still empty.
func (c *compareCmd) plan(all []targets.Target) (plan runner.Plan, r *stats.Results, err error) {
	if err := c.check(); err != nil {
		return plan, nil, err
	}
	rounds := c.Rounds // 0: the default
	c.defaults()
	g := c.generator()
	if g != nil {
		if c.Seconds < 1 {
			return plan, nil, cli.Usagef("--seconds %g: --with %s takes whole seconds", c.Seconds, c.With)
		}
		if len(c.Scenarios) > 0 && !slices.Equal(c.Scenarios, []string{g.Scenario}) {
			return plan, nil, cli.Usagef("--scenarios %s: --with %s does %s alone", strings.Join(c.Scenarios, ","), c.With, g.Scenario)
		}
		c.Scenarios = []string{g.Scenario}
	}
	plan = runner.Plan{Named: len(c.Relays) > 0, Rounds: c.Rounds, WarmUp: c.Warmup, Window: time.Duration(c.Seconds * float64(time.Second))}
	if plan.Candidates, err = runner.Choose(c.Relays, c.RelayCommand); err != nil {
		return plan, nil, cli.Usagef("--relays: %w", err)
	}
	if plan.Workloads, err = scenario.Choose(c.Scenarios, c.Only); err != nil {
		return plan, nil, cli.Usagef("%w", err)
	}
	switch {
	case c.Check:
		plan = targets.Plan(plan, all, rounds)
	case rounds == 0:
		plan.FewerAtRest()
	}
	congestion, err := testbed.ChooseCongestion(c.Congestion)
	if err != nil {
		return plan, nil, cli.Usagef("--congestion: %w", err)
	}
	r = &stats.Results{Settings: stats.Settings{
		Began: time.Now(), Rounds: c.Rounds, RoundsAt: maps.Clone(plan.RoundsAt), Seconds: c.Seconds, WarmUp: c.Warmup.Seconds(), With: c.With,
		Congestion: congestion,
	}}
	if g != nil {
		r.Notes = append(r.Notes, g.Note)
	}
	return plan, r, nil
}

// reduce leaves out of the plan the relays whose programs are missing, and notes that; and it
// decides what the figures are divided by.
func (c *compareCmd) reduce(plan *runner.Plan, r *stats.Results, run *runner.Runner) error {
	tprelay, err := findTPRelay(c.TPRelay)
	run.TPRelay = tprelay
	left := slices.DeleteFunc(slices.Clone(plan.Candidates), func(relay runner.Candidate) bool {
		missing := missing(relay.Relay, err)
		if missing != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s is left out: %s", relay.Name, missing))
		}
		return missing != ""
	})
	if len(left) == 0 {
		return fmt.Errorf("compare: no relay is left: %s", strings.Join(r.Notes, "; "))
	}
	plan.Candidates = left
	named := func(name string) bool {
		return slices.ContainsFunc(left, func(relay runner.Candidate) bool { return relay.Name == name })
	}
	switch base := c.Baseline; {
	case base != "" && !named(base):
		return cli.Usagef("--baseline %s: it is not among the relays that are measured", base)
	case base != "":
		r.Settings.Baseline = base
	case named("haproxy"):
		r.Settings.Baseline = "haproxy"
	default:
		r.Settings.Baseline = left[0].Name
	}
	for _, relay := range left {
		r.Relays = append(r.Relays, stats.Relay{Name: relay.Name, Relay: relay.Relay.Name, Title: relay.Title, Way: relay.Way.String(), Advice: relay.Advice})
	}
	for _, w := range plan.Workloads {
		r.Workloads = append(r.Workloads, w.Name)
	}
	return nil
}

// tell prints the results and writes them, if there are any.
func (c *compareCmd) tell(w io.Writer, r *stats.Results) error {
	if len(r.Runs) == 0 {
		return nil
	}
	if c.Out != "" {
		if err := output.Write(c.Out, r); err != nil {
			return err
		}
	}
	if c.JSON {
		return output.WriteJSON(w, r)
	}
	_, err := io.WriteString(w, output.Markdown(r))
	return err
}

// formatLeft gives a time as people wait for it: 40 s, 12 min.
func formatLeft(d time.Duration) string {
	if d < 90*time.Second {
		return fmt.Sprintf("%d s", max(int(d.Round(time.Second).Seconds()), 1))
	}
	return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
}
