package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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
	Apply  rulesApply  `cmd:"" help:"Set the rules up, in place of any that this command set up before."`
	Verify rulesVerify `cmd:"" help:"Check that everything stands; one line for each thing that does not. Without flags: what was applied."`
	Remove rulesRemove `cmd:"" help:"Take the rules down and restore what was changed."`
}

// rulesFlags say what to divert, and to where.
type rulesFlags struct {
	Mode           string        `enum:"tproxy,redirect" default:"tproxy" help:"How connections are handed over: ${enum}."`
	Listen         []string      `placeholder:"ADDR:PORT" help:"Where the relay listens; once, or once per family. :PORT is every address (IPv4; with --ipv6, IPv6 too), [::]:PORT both families."`
	In             []string      `placeholder:"IFACE" help:"Interface on which clients' connections come in; repeat or separate with commas."`
	Dport          []string      `placeholder:"PORTS" help:"Destination ports to divert, such as 80,443,8000-8080. Default: all but ssh."`
	Backend        string        `enum:"nft,iptables" default:"nft" help:"Program that loads the rules: ${enum}."`
	IPv6           bool          `name:"ipv6" help:"Divert IPv6 too; fails if no listener can take it."`
	OnDown         onDownFlag    `placeholder:"open|closed" help:"New connections while no relay listens: open lets them pass (nft with tproxy only), closed drops or refuses them. Default: open with nft and tproxy, otherwise closed."`
	Exclude        []networkFlag `placeholder:"CIDR" help:"Destinations that are not diverted."`
	ExcludeClient  []networkFlag `placeholder:"CIDR" help:"Clients that are not diverted."`
	SSHPort        []portFlag    `name:"ssh-port" placeholder:"PORT" help:"Port that is not diverted, unless --dport names it. Default: 22."`
	NoSSHExclusion bool          `name:"no-ssh-exclusion" help:"Divert ssh like anything else."`
	Transparent    bool          `help:"Redirect mode: the relay binds to clients' addresses (run --spoof ip); bring the replies back."`
	Mark           markFlag      `placeholder:"N" help:"Packet mark for the routing rule, 0x works; not the mark of run --mark. Default: 0x7470."`
	Table          *int          `placeholder:"N" help:"Number of the routing table. Default: 7470."`
	SetSysctls     bool          `name:"set-sysctls" help:"Change kernel settings that stand in the way; remove restores them."`
	State          string        `placeholder:"DIR" help:"Directory for the record of what was changed. Default: /run/tprelay."`
}

// config turns flags into what package rules understands.
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

// named says whether the flags name a set of rules at all.
func (f *rulesFlags) named() bool { return len(f.Listen) > 0 || len(f.In) > 0 }

// check is what kong's Validate hooks call, so that bad usage ends with status 2
// and before anything is done.
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
	Confirm *time.Duration `placeholder:"60s" help:"Take everything back unless you press Enter within this time: for those who might lock themselves out."`
}

// Validate refuses flags that cannot work.
func (r *rulesApply) Validate() error {
	if r.Confirm != nil && *r.Confirm <= 0 {
		return fmt.Errorf("--confirm %v: want more than 0; to apply without confirmation leave it out", *r.Confirm)
	}
	return r.check()
}

// Run applies the rules, and warns of what stands in their way.
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
	Listener bool `help:"Also check that something listens."`
}

// Validate refuses flags that cannot work; none at all mean what was applied.
func (r *rulesVerify) Validate() error {
	if !r.named() {
		_, err := r.config()
		return err
	}
	return r.check()
}

// Run prints one line per problem, and fails if there is any.
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
			return errors.New("rules verify: nothing was applied here; apply it, or say with --listen and --in what to look for")
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
		return errors.New("rules verify: 1 thing is missing or wrong")
	case len(problems) > 0:
		return fmt.Errorf("rules verify: %d things are missing or wrong", len(problems))
	}
	fmt.Println("ok: everything stands for tprelay rules apply " + cfg.Flags())
	return nil
}

// rulesRemove takes the same flags, so that a command line can be reused, but
// needs none: the record knows what was applied.
type rulesRemove struct{ rulesFlags }

// Validate refuses flags that cannot be read.
func (r *rulesRemove) Validate() error {
	_, err := r.config()
	return err
}

// Run takes everything down.
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
