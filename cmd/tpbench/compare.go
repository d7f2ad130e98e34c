package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab"
)

// compareCmd is tpbench compare.
type compareCmd struct {
	Relays       []string       `placeholder:"NAME,..." help:"Relays, see --list; one that is named twice is measured twice. Default: all but gnet and socat; all: these too."`
	Scenarios    []string       `placeholder:"NAME,..." help:"Scenarios: bulk, rr, light, cps, idle, slow, mixed, scale, many. Default: all."`
	Only         []string       `placeholder:"POINT,..." help:"Of the scenarios these points only, see --list."`
	Rounds       int            `placeholder:"3" help:"How often each relay is measured at each point; the median counts."`
	TargetRounds int            `placeholder:"N" help:"How often those relays are measured that a target of the project compares at a point. Default: as --rounds says."`
	Seconds      float64        `placeholder:"4" help:"Length of each window."`
	Warmup       time.Duration  `default:"1s" help:"Time before each window, from when all connections stand."`
	Again        *time.Duration `placeholder:"DURATION" help:"For how long, at the end, rounds of a point are done again in which the host of this virtual machine took more than 2 % of the CPU time. Default: half of the time that the others take."`
	Baseline     string         `placeholder:"haproxy" help:"The relay that others are divided by. Default: haproxy, and without it the first."`
	With         string         `enum:"builtin,iperf3,wrk" default:"builtin" help:"Who sends and receives: ${enum}. iperf3 does bulk alone; wrk does rr alone, with nginx at the other end."`
	Congestion   string         `placeholder:"NAME" help:"Congestion control of all TCP connections in the lab. Default: cubic, whatever the machine uses otherwise."`
	RelayCommand string         `placeholder:"CMD" help:"${relay_command}"`
	TPRelay      string         `name:"tprelay" placeholder:"PATH" help:"The program tprelay. Default: that beside tpbench, or else that in PATH."`
	Out          string         `placeholder:"DIR" help:"Write the raw figures there, as JSON and CSV, and the tables; tpbench report DIR makes a page of them. Default: nowhere."`
	JSON         bool           `name:"json" help:"Print all raw figures as JSON instead of tables."`
	Quick        bool           `help:"A few points and relays, two rounds of two seconds."`
	Targets      bool           `help:"Only the relays and points that the project's targets are about, twenty rounds of 1.2 s where they compare relays; see --check."`
	Self         bool           `help:"Measure tprelay against itself, to see how far figures can be trusted."`
	Check        bool           `help:"Exit with status 1 when a target of the project is not held."`
	List         bool           `help:"List relays and points, and measure nothing."`
}

// Run measures, and prints what came of it.
func (c *compareCmd) Run(command *kong.Context) error {
	c.defaults()
	plan, results, err := c.plan()
	if err != nil {
		return err
	}
	if c.List {
		return list(command.Stdout, c.RelayCommand)
	}
	if c.Out != "" {
		if err := bench.MakeDir(c.Out); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	driver := &bench.Driver{Command: c.RelayCommand, With: c.With, Congestion: results.Settings.Congestion}
	if driver.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("compare: path of this program: %w", err)
	}
	if err := c.reduce(&plan, results, driver); err != nil {
		return err
	}
	for _, note := range results.Notes {
		fmt.Fprintln(command.Stderr, note)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once

	if driver.Again = plan.Total() / 2; c.Again != nil {
		driver.Again = *c.Again
	}
	results.Machine = bench.ThisMachine()
	p := newProgress(command.Stderr)
	p.step(fmt.Sprintf("%d runs, about %s", len(plan.Steps()), formatLeft(plan.Total())))
	driver.Progress = func(s bench.Step, done, all int, left time.Duration) {
		if done == all {
			p.step(fmt.Sprintf("again, as the machine's host took much: %s, %s, round %d; at most %s left", s.Point.Name, s.Relay.Name, s.Round, formatLeft(left)))
			return
		}
		p.step(fmt.Sprintf("%d of %d: %s, %s, round %d; %s left", done+1, all, s.Point.Name, s.Relay.Name, s.Round, formatLeft(left)))
	}
	err = driver.Run(ctx, plan, results)
	p.clear()
	interrupted := ctx.Err() != nil
	if err != nil && !interrupted {
		return fmt.Errorf("compare: %w", err)
	}
	if err := c.tell(command.Stdout, results); err != nil {
		return err
	}
	if interrupted {
		return errors.New("interrupted")
	}
	if broken := bench.Broken(results.Verdicts()); c.Check && broken > 0 {
		return fmt.Errorf("compare: targets that are not held: %d", broken)
	}
	return nil
}

// defaults fills in what was not said.
func (c *compareCmd) defaults() {
	rounds, seconds := 3, 4.0
	if c.Quick {
		rounds, seconds = 2, 2
		if len(c.Relays) == 0 && !c.Self {
			c.Relays = []string{"direct", "tprelay", "haproxy", "iocopy"}
		}
		if len(c.Scenarios) == 0 && len(c.Only) == 0 {
			c.Only = []string{"bulk-1-up", "rr-100", "rr-2000", "cps-50", "idle-1000"}
		}
	}
	if c.Targets {
		seconds = 1.2
		if c.TargetRounds == 0 {
			c.TargetRounds = 20
		}
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
func (c *compareCmd) plan() (plan bench.Plan, r *bench.Results, err error) {
	switch {
	case c.Rounds < 1 || c.Rounds > 100:
		return plan, nil, cli.Usagef("--rounds %d: must be between 1 and 100", c.Rounds)
	case c.TargetRounds < 0 || c.TargetRounds > 100:
		return plan, nil, cli.Usagef("--target-rounds %d: must be between 1 and 100", c.TargetRounds)
	case !(c.Seconds >= 0.1 && c.Seconds <= 600):
		return plan, nil, cli.Usagef("--seconds %g: must be between 0.1 and 600", c.Seconds)
	case c.Warmup < 0 || c.Warmup > 10*time.Minute:
		return plan, nil, cli.Usagef("--warmup %v: must be between 0 and 10m", c.Warmup)
	case c.Again != nil && *c.Again < 0:
		return plan, nil, cli.Usagef("--again %v: must not be negative", *c.Again)
	case c.Targets && (c.Self || c.Quick || c.With != bench.Builtin || len(c.Relays)+len(c.Scenarios)+len(c.Only) > 0):
		return plan, nil, cli.Usagef("--targets says itself what is measured: leave out --relays, --scenarios, --only, --with, --quick and --self")
	case c.With != bench.Builtin && c.Seconds < 1:
		return plan, nil, cli.Usagef("--seconds %g: --with %s takes whole seconds", c.Seconds, c.With)
	}
	plan = bench.Plan{
		Named: len(c.Relays) > 0, Rounds: c.Rounds, TargetRounds: c.TargetRounds, WarmUp: c.Warmup, Window: time.Duration(c.Seconds * float64(time.Second)),
	}
	if plan.Relays, err = bench.ChooseRelays(c.Relays, c.RelayCommand); err != nil {
		return plan, nil, cli.Usagef("--relays: %w", err)
	}
	if only := map[string]string{bench.Iperf3: "bulk", bench.Wrk: "rr"}[c.With]; only != "" {
		if len(c.Scenarios) > 0 && !slices.Equal(c.Scenarios, []string{only}) {
			return plan, nil, cli.Usagef("--scenarios %s: --with %s does %s alone", strings.Join(c.Scenarios, ","), c.With, only)
		}
		c.Scenarios = []string{only}
	}
	if plan.Points, err = bench.ChoosePoints(c.Scenarios, c.Only); err != nil {
		return plan, nil, cli.Usagef("%w", err)
	}
	if c.Targets {
		plan = plan.ForTargets()
	}
	congestion, err := bench.ChooseCongestion(c.Congestion)
	if err != nil {
		return plan, nil, cli.Usagef("--congestion: %w", err)
	}
	r = &bench.Results{Settings: bench.Settings{
		Began: time.Now(), Command: c.commandLine(), Rounds: c.Rounds, TargetRounds: c.TargetRounds, Seconds: c.Seconds, WarmUp: c.Warmup.Seconds(), With: c.With,
		Congestion: congestion,
	}}
	switch c.With {
	case bench.Wrk:
		r.Notes = append(r.Notes, "wrk has no warm-up: opening the connections is within what was measured")
	case bench.Iperf3:
		r.Notes = append(r.Notes, "iperf3 tells the sender's rate after the warm-up; CPU time is that of the whole transfer over all its bytes")
	}
	return plan, r, nil
}

// reduce leaves out of the plan the relays whose programs are not here, and notes
// that; and it settles what the figures are divided by.
func (c *compareCmd) reduce(plan *bench.Plan, r *bench.Results, d *bench.Driver) error {
	tprelay, err := findTPRelay(c.TPRelay)
	d.TPRelay = tprelay
	left := slices.Clone(plan.Relays)
	left = slices.DeleteFunc(left, func(relay bench.Contestant) bool {
		missing := relay.Missing()
		if strings.HasPrefix(relay.Relay.Name, "tprelay") && err != nil {
			missing = err.Error()
		}
		if missing != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s is left out: %s", relay.Name, missing))
		}
		return missing != ""
	})
	if len(left) == 0 {
		return fmt.Errorf("compare: no relay is left: %s", strings.Join(r.Notes, "; "))
	}
	plan.Relays = left
	named := func(name string) bool {
		return slices.ContainsFunc(left, func(relay bench.Contestant) bool { return relay.Name == name })
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
		r.Relays = append(r.Relays, bench.Relay{Name: relay.Name, Peer: relay.Relay.Name, Title: relay.Title, Way: relay.Way.String(), Advice: relay.Advice})
	}
	for _, p := range plan.Points {
		r.Points = append(r.Points, p.Name)
	}
	return nil
}

// tell prints the results and writes them, if there are any.
func (c *compareCmd) tell(w io.Writer, r *bench.Results) error {
	if len(r.Runs) == 0 {
		return nil
	}
	if c.Out != "" {
		if err := r.Write(c.Out); err != nil {
			return err
		}
	}
	if c.JSON {
		return r.WriteJSON(w)
	}
	_, err := io.WriteString(w, r.Markdown())
	return err
}

// commandLine gives the command that does the same again, whatever the defaults.
func (c *compareCmd) commandLine() string {
	args := []string{"tpbench", "compare"}
	list := func(flag string, values []string) {
		if len(values) > 0 {
			args = append(args, flag, strings.Join(values, ","))
		}
	}
	list("--relays", c.Relays)
	list("--scenarios", c.Scenarios)
	list("--only", c.Only)
	if c.Targets {
		args = append(args, "--targets")
	}
	args = append(args, "--rounds", fmt.Sprint(c.Rounds))
	if c.TargetRounds > 0 {
		args = append(args, "--target-rounds", fmt.Sprint(c.TargetRounds))
	}
	args = append(args, "--seconds", fmt.Sprint(c.Seconds), "--warmup", c.Warmup.String())
	if c.Again != nil {
		args = append(args, "--again", c.Again.String())
	}
	if c.Baseline != "" {
		args = append(args, "--baseline", c.Baseline)
	}
	if c.With != bench.Builtin {
		args = append(args, "--with", c.With)
	}
	if c.Congestion != "" {
		args = append(args, "--congestion", c.Congestion)
	}
	if c.RelayCommand != "" {
		args = append(args, "--relay-command", "'"+strings.ReplaceAll(c.RelayCommand, "'", `'\''`)+"'")
	}
	return strings.Join(args, " ")
}

// formatLeft gives a time as people wait for it: 40 s, 12 min.
func formatLeft(d time.Duration) string {
	if d < 90*time.Second {
		return fmt.Sprintf("%d s", max(int(d.Round(time.Second).Seconds()), 1))
	}
	return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
}
