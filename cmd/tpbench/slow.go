package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/bottleneck"
	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab"
)

// slowCmd is tpbench slow.
type slowCmd struct {
	Relays       []string `default:"direct,tprelay,tprelay-no-flow-control,haproxy,iocopy" help:"Relays to measure, see tpbench compare --list. With direct among them, the table also shows what each relay adds."`
	RelayCommand string   `placeholder:"CMD" help:"${relay_command}"`
	Mode         string   `enum:"tproxy,redirect" default:"tproxy" help:"How connections reach the relays: ${enum}."`
	Rounds       int      `default:"3" help:"Number of rounds; the medians are printed."`
	Again        int      `default:"2" help:"Number of times that a transfer is repeated if the machine's host took more than 2 % of the CPU time (steal). The least disturbed one counts."`
	Flows        int      `default:"1" help:"Number of concurrent connections."`
	Crowd        int      `default:"0" help:"At the end, measure the memory of the first relay with this many concurrent connections. 0: do not."`
	Ordinary     bool     `help:"Measure each transfer twice: rates, settle time, bytes in flight and memory with a sender whose kernel sizes its send buffer, as for most programs; delay with a sender that uses --unsent."`
	Goals        bool     `help:"Also print the project's requirements for tprelay, and whether they are met."`
	Check        []string `placeholder:"GOAL" help:"Like --goals; the exit status is 1 if one of these goals is missed: all, or some of ratio, settle, throughput, delay, excess, pending, memory, flows, control; works: only if nothing arrived, or if the sender was not faster without flow control."`
	JSON         string   `name:"json" placeholder:"FILE" help:"Write all figures and samples to this file as JSON; -: print them instead of the table. Default: none."`
	transferFlags
}

// Run measures the relays in turn, and prints a table.
func (c *slowCmd) Run(command *kong.Context) error {
	goals, err := bottleneck.ChooseGoals(c.Check)
	if err != nil {
		return cli.Usagef("--check %w", err)
	}
	result, err := c.measure(command, "slow")
	if err = errors.Join(err, c.tell(command.Stdout, result)); err != nil {
		return err
	}
	if missed := result.Missed(goals); len(missed) > 0 {
		return fmt.Errorf("slow: missed: %s", strings.Join(missed, ", "))
	}
	return nil
}

// measure does it, for the command of that name. The result holds what was measured before an
// error.
func (c *slowCmd) measure(command *kong.Context, name string) (*bottleneck.Comparison, error) {
	result := &bottleneck.Comparison{}
	chosen, err := c.relays()
	if err != nil {
		return result, err
	}
	if err := netlab.Enter(); err != nil {
		return result, err
	}
	setup, err := c.setup()
	if err != nil {
		return result, fmt.Errorf("%s: %w", name, err)
	}
	setup.Flows, setup.Ordinary, setup.Redirect, setup.Again = c.Flows, c.Ordinary, c.Mode == "redirect", c.Again
	result.Settings = setup.Settings()
	result.Notes = c.Note
	set := &result.Settings
	set.Rounds, set.Crowd, set.Command = c.Rounds, c.Crowd, commandLine(command.Args)
	if setup.TPRelay, chosen, err = c.installed(chosen, result); err != nil {
		return result, fmt.Errorf("%s: %w", name, err)
	}
	for _, note := range result.Notes {
		fmt.Fprintln(command.Stderr, note)
	}
	ctx, stop := interruptible()
	defer stop()

	p := newProgress(command.Stderr)
	err = setup.Compare(ctx, chosen, result, p.step)
	p.clear()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	} else if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return result, err
}

// relays are those that were asked for.
func (c *slowCmd) relays() (chosen []relays.Relay, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := checkFile("--json", c.JSON); err != nil {
		return nil, err
	}
	switch {
	case c.Rounds < 1 || c.Rounds > 100:
		return nil, cli.Usagef("--rounds %d: must be between 1 and 100", c.Rounds)
	case c.Again < 0:
		return nil, cli.Usagef("--again %d: must not be negative", c.Again)
	case c.Flows < 1 || c.Flows > 1000:
		return nil, cli.Usagef("--flows %d: must be between 1 and 1000", c.Flows)
	case c.Crowd < 0 || c.Crowd > 1000:
		return nil, cli.Usagef("--crowd %d: must be between 0 and 1000", c.Crowd)
	}
	if c.RelayCommand != "" && !slices.Contains(c.Relays, "command") {
		c.Relays = append(c.Relays, "command")
	}
	all := relays.All(c.RelayCommand)
	for _, name := range c.Relays {
		p, err := all.Find(name)
		if err == nil && c.Mode == "redirect" {
			p, err = p.Redirected()
		}
		if err != nil {
			return nil, cli.Usagef("--relays: %w", err)
		}
		if slices.ContainsFunc(chosen, func(other relays.Relay) bool { return other.Name == name }) {
			return nil, cli.Usagef("--relays: %s is named twice", name)
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// installed leaves out the relays whose programs are not here, and notes that.
func (c *slowCmd) installed(chosen []relays.Relay, r *bottleneck.Comparison) (tprelay string, left []relays.Relay, err error) {
	tprelay, err = findTPRelay(c.TPRelay)
	for _, p := range chosen {
		if missing := missing(p, err); missing != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s is left out: %s", p.Name, missing))
			continue
		}
		left = append(left, p)
		r.Relays = append(r.Relays, bottleneck.Name{Name: p.Name, Title: p.Title})
	}
	if len(left) == 0 {
		return "", nil, fmt.Errorf("no relay is left: %s", strings.Join(r.Notes, "; "))
	}
	return tprelay, left, nil
}

// tell prints the tables and writes the files, if there is anything.
func (c *slowCmd) tell(w io.Writer, r *bottleneck.Comparison) error {
	if len(r.Runs) == 0 {
		return nil
	}
	if c.JSON != "" {
		if err := writeTo(c.JSON, w, r.WriteJSON); err != nil {
			return err
		}
	}
	if c.Plot != "" {
		if err := writeTo(c.Plot, w, r.HTML); err != nil {
			return err
		}
	}
	if c.JSON == "-" || c.Plot == "-" {
		return nil
	}
	var b strings.Builder
	describe(&b, r)
	align(&b, r.Rows())
	b.WriteByte('\n')
	for _, sentence := range r.Settings.Legend() {
		fmt.Fprintln(&b, sentence)
	}
	if c.Goals || len(c.Check) > 0 {
		b.WriteByte('\n')
		align(&b, bottleneck.GoalRows(r.Goals()))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// describe says what was measured, above the table.
func describe(b *strings.Builder, r *bottleneck.Comparison) {
	fmt.Fprintln(b, r.Settings)
	for _, note := range r.Notes {
		fmt.Fprintln(b, note)
	}
	b.WriteByte('\n')
}

// align writes rows in columns: numbers to the right, and text to the left.
func align(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			switch i {
			case 0:
				fmt.Fprintf(b, "%-*s", width[i], cell)
			case len(row) - 1:
				fmt.Fprintf(b, "  %s\n", cell)
			default:
				fmt.Fprintf(b, "  %*s", width[i], cell)
			}
		}
	}
}
