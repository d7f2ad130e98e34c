package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// rulesCmd is `tprelay rules`.
type rulesCmd struct {
	Print  rulesPrint  `cmd:"" help:"Print the rules as a commented shell script; change nothing."`
	Apply  rulesApply  `cmd:"" help:"Set up the rules. They replace those of an earlier apply."`
	Verify rulesVerify `cmd:"" help:"List every missing or wrong rule and setting."`
	Remove rulesRemove `cmd:"" help:"Remove the rules and restore the settings that apply changed."`
}

// rulesFlags are the flags that describe a set of rules.
type rulesFlags struct {
	Mode           string        `enum:"tproxy,redirect" default:"tproxy" help:"How the kernel passes connections to the relay: ${enum}."`
	Listen         []string      `placeholder:"ADDR:PORT" help:"Address of the relay's listener, at most one per IP version. :PORT means all IPv4 addresses (with --ipv6, IPv6 too), [::]:PORT all addresses of both."`
	In             []string      `placeholder:"IFACE" help:"Interface on which clients' connections arrive. Repeat the flag or separate names with commas."`
	Dport          []string      `placeholder:"PORTS" help:"Destination ports to divert, such as 80,443,8000-8080. Default: all except ssh."`
	Backend        string        `enum:"nft,iptables" default:"nft" help:"Program that loads the rules: ${enum}."`
	IPv6           bool          `name:"ipv6" help:"Divert IPv6 too. Fails if no --listen address accepts IPv6."`
	OnDown         onDownFlag    `placeholder:"open|closed" help:"What happens to new connections while no relay listens: with open they pass undiverted (nft with tproxy only), with closed they are dropped or refused. Default: open with nft and tproxy, otherwise closed."`
	Exclude        []networkFlag `placeholder:"CIDR" help:"Do not divert connections to these destinations."`
	ExcludeClient  []networkFlag `placeholder:"CIDR" help:"Do not divert connections from these clients."`
	SSHPort        []portFlag    `name:"ssh-port" placeholder:"PORT" help:"Do not divert this port unless --dport names it. Default: 22."`
	NoSSHExclusion bool          `name:"no-ssh-exclusion" help:"Divert ssh like any other connection."`
	Transparent    bool          `help:"In redirect mode: add the rules that route replies back to a relay that uses the clients' addresses (run --spoof ip)."`
	Mark           markFlag      `placeholder:"N" help:"Packet mark that the routing rule matches, decimal or 0x. It must differ from run --mark. Default: 0x7470."`
	Table          *int          `placeholder:"N" help:"Number of the routing table. Default: 7470."`
	SetSysctls     bool          `name:"set-sysctls" help:"Change the kernel settings that would break the rules. remove restores them."`
	State          string        `placeholder:"DIR" help:"Directory of the record of changes. Default: /run/tprelay."`
}

// config converts the flags to a rules.Config.
func (f *rulesFlags) config() (rules.Config, error) {
	cfg := rules.Config{
		In: f.In, IPv6: f.IPv6, OnDown: rules.OnDown(f.OnDown), Backend: rules.Backend(f.Backend),
		NoSSHExclusion: f.NoSSHExclusion, Transparent: f.Transparent,
		Mark: uint32(f.Mark), SetSysctls: f.SetSysctls, StateDir: f.State,
		Management: rules.ManagementFromEnv(os.Getenv("SSH_CONNECTION")),
	}
	for _, port := range f.SSHPort {
		cfg.SSHPorts = append(cfg.SSHPorts, uint16(port))
	}
	if f.Table != nil {
		if cfg.Table = *f.Table; cfg.Table == 0 {
			return cfg, errors.New("--table 0: want 1 or more; for the default leave it out")
		}
	}
	var err error
	if cfg.Mode, err = tproxy.ParseMode(f.Mode); err != nil {
		return cfg, err
	}
	if cfg.Ports, err = rules.ParsePorts(strings.Join(f.Dport, ",")); err != nil {
		return cfg, err
	}
	for _, text := range f.Listen {
		listen, err := rules.ParseListen(text)
		if err != nil {
			return cfg, err
		}
		cfg.Listen = append(cfg.Listen, listen)
	}
	cfg.Exclude, cfg.ExcludeClients = prefixes(f.Exclude), prefixes(f.ExcludeClient)
	return cfg, nil
}

// named reports whether the flags describe a set of rules.
func (f *rulesFlags) named() bool { return len(f.Listen) > 0 || len(f.In) > 0 }

// check is called from kong's Validate hooks, so that wrong usage ends with status 2 before
// anything is changed.
func (f *rulesFlags) check() error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	return cfg.Validate()
}

type rulesPrint struct{ rulesFlags }

// Validate refuses flags that cannot work.
func (r *rulesPrint) Validate() error { return r.check() }

// Run prints the script.
func (r *rulesPrint) Run() error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(cfg.Render())
	return err
}

type rulesApply struct {
	rulesFlags
	Confirm *time.Duration `placeholder:"60s" help:"Undo everything unless you press Enter within this time. Use it where the rules might lock you out."`
}

// Validate refuses flags that cannot work.
func (r *rulesApply) Validate() error {
	if r.Confirm != nil && *r.Confirm <= 0 {
		return fmt.Errorf("--confirm %v: want more than 0; to apply without confirmation leave it out", *r.Confirm)
	}
	return r.check()
}

// Run applies the rules and warns of kernel settings that break them.
func (r *rulesApply) Run(command *kong.Context) error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if r.Confirm != nil {
		return applyWithConfirm(cfg, *r.Confirm, os.Stdin, command.Stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := rules.Apply(ctx, cfg); err != nil {
		return fmt.Errorf("rules apply: %w", err)
	}
	warn(command.Stderr, cfg)
	return nil
}

type rulesVerify struct {
	rulesFlags
	Listener bool `help:"Also check that a program listens where the rules divert to."`
}

// Help is the part of --help above the flags.
func (*rulesVerify) Help() string {
	return `
Each line names one missing or wrong rule or setting and the command that fixes it. The exit status is 1 if there is any.

verify checks what apply set up. It also takes the flags of apply, and then checks for the rules that they describe.
`
}

// Validate refuses flags that cannot work. Without flags, verify checks what was applied.
func (r *rulesVerify) Validate() error {
	if !r.named() {
		_, err := r.config()
		return err
	}
	return r.check()
}

// Run prints one line per problem and fails if there is any.
func (r *rulesVerify) Run() error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if !r.named() {
		applied, ok, err := rules.Applied(r.State)
		if err != nil {
			return fmt.Errorf("rules verify: %w", err)
		} else if !ok {
			return errors.New("rules verify: no rules were applied here; run tprelay rules apply, or describe the rules with --listen and --in")
		}
		cfg = applied
	}
	cfg.CheckListener = r.Listener
	problems, err := rules.Verify(context.Background(), cfg)
	for _, p := range problems {
		fmt.Println(p)
	}
	switch {
	case err != nil:
		return fmt.Errorf("rules verify: %w", err)
	case len(problems) == 1:
		return errors.New("rules verify: 1 rule or setting is missing or wrong")
	case len(problems) > 0:
		return fmt.Errorf("rules verify: %d rules and settings are missing or wrong", len(problems))
	}
	fmt.Println("ok: all rules and settings of tprelay rules apply " + cfg.Flags() + " are in place")
	return nil
}

// rulesRemove accepts the flags of apply, so that a command line can be reused. It needs
// none of them while the record of what was applied exists.
type rulesRemove struct{ rulesFlags }

// Help is the part of --help above the flags.
func (*rulesRemove) Help() string {
	return `
The record that apply wrote says what to remove and restore. Without that record, remove deletes everything that bears the
name tprelay, and the routing for --mark and --table.
`
}

// hideFlags leaves flags out of --help where they are accepted but have no effect of their
// own: verify and remove take a whole command line of apply.
func hideFlags(parser *kong.Kong) error {
	shown := map[string][]string{
		"tprelay rules verify": {"help", "listener", "state"},
		"tprelay rules remove": {"help", "mark", "table", "state"},
	}
	for _, command := range parser.Model.Leaves(false) {
		if names, ok := shown[command.FullPath()]; ok {
			for _, flag := range command.Flags {
				flag.Hidden = !slices.Contains(names, flag.Name)
			}
		}
	}
	return nil
}

// Validate refuses flags that cannot be parsed.
func (r *rulesRemove) Validate() error {
	_, err := r.config()
	return err
}

// Run removes the rules.
func (r *rulesRemove) Run() error {
	cfg, err := r.config()
	if err == nil {
		err = rules.Remove(context.Background(), cfg)
	}
	if err != nil {
		return fmt.Errorf("rules remove: %w", err)
	}
	return nil
}
