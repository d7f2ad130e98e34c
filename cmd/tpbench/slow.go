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

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/netlab"
)

// slowCmd is tpbench slow.
type slowCmd struct {
	Relays       []string `default:"direct,tprelay,tprelay-no-flow-control,haproxy,iocopy" help:"Relays, of those that tpbench compare --list names. What a relay adds is told if direct is among them."`
	RelayCommand string   `placeholder:"CMD" help:"${relay_command}"`
	Rounds       int      `default:"3" help:"How often each relay is measured; the medians are printed."`
	JSON         string   `name:"json" placeholder:"FILE" help:"Write all figures and samples there as JSON; -: print them instead of the table. Default: nowhere."`
	transferFlags
}

// Run measures the relays in turn, and prints a table.
func (c *slowCmd) Run(command *kong.Context) error {
	chosen, err := c.relays()
	if err != nil {
		return err
	}
	if err := netlab.Enter(); err != nil {
		return err
	}
	setup := c.setup()
	if setup.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("slow: path of this program: %w", err)
	}
	result := &flow.Comparison{Settings: setup.Settings()}
	result.Settings.Rounds, result.Settings.Command = c.Rounds, commandLine(command.Args)
	if setup.TPRelay, chosen, err = c.installed(chosen, result); err != nil {
		return err
	}
	for _, note := range result.Notes {
		fmt.Fprintln(command.Stderr, note)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once

	p := newProgress(command.Stderr)
	err = setup.Compare(ctx, chosen, result, func(round int, relay string) {
		p.step(fmt.Sprintf("round %d of %d: %s, %d s", round, c.Rounds, relay, c.Seconds))
	})
	p.clear()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	} else if err != nil {
		err = fmt.Errorf("slow: %w", err)
	}
	return errors.Join(err, c.tell(command.Stdout, result))
}

// relays are those that were asked for.
func (c *slowCmd) relays() (chosen []relays.Relay, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := checkFile("--json", c.JSON); err != nil {
		return nil, err
	}
	if c.Rounds < 1 || c.Rounds > 100 {
		return nil, cli.Usagef("--rounds %d: must be between 1 and 100", c.Rounds)
	}
	if c.RelayCommand != "" && !slices.Contains(c.Relays, "command") {
		c.Relays = append(c.Relays, "command")
	}
	for _, name := range c.Relays {
		p, err := relays.Find(name, c.RelayCommand)
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
func (c *slowCmd) installed(chosen []relays.Relay, r *flow.Comparison) (tprelay string, left []relays.Relay, err error) {
	tprelay, err = findTPRelay(c.TPRelay)
	for _, p := range chosen {
		missing := p.Missing()
		if strings.HasPrefix(p.Name, "tprelay") && err != nil {
			missing = err.Error()
		}
		if missing != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s is left out: %s", p.Name, missing))
			continue
		}
		left = append(left, p)
		r.Relays = append(r.Relays, flow.Name{Name: p.Name, Title: p.Title})
	}
	if len(left) == 0 {
		return "", nil, fmt.Errorf("slow: no relay is left: %s", strings.Join(r.Notes, "; "))
	}
	return tprelay, left, nil
}

// tell prints the table and writes the files, if there is anything.
func (c *slowCmd) tell(w io.Writer, r *flow.Comparison) error {
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
	s := r.Settings
	fmt.Fprintln(&b, s)
	for _, note := range r.Notes {
		fmt.Fprintln(&b, note)
	}
	b.WriteByte('\n')
	align(&b, r.Rows())
	b.WriteByte('\n')
	for _, sentence := range s.Legend() {
		fmt.Fprintln(&b, sentence)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
