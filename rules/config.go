package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/tprelay/tprelay/tproxy"
)

// Defaults of Config.
const (
	// DefaultMark and DefaultTable are meant to collide with nobody: 1 and 100,
	// which the kernel's own documentation uses, are taken on many hosts.
	DefaultMark  = 0x7470
	DefaultTable = 7470
	// DefaultSSHPort is the port that is left alone.
	DefaultSSHPort = 22
	// DefaultStateDir is where is kept what Remove puts back.
	DefaultStateDir = "/run/tprelay"
)

// rulePriority is the place of our `ip rule`: behind the local table (0), ahead
// of everything that VPNs and policy routing commonly add.
const rulePriority = 100

// Backend is the program that loads packet filter rules.
type Backend string

const (
	NFT      Backend = "nft"
	IPTables Backend = "iptables"
)

// OnDown says what becomes of new connections while no relay listens.
type OnDown string

const (
	// OnDownDefault is what the back end does by nature: open with nft in TPROXY
	// mode, closed otherwise.
	OnDownDefault OnDown = ""
	// Open lets them pass to their destination. Only nft in TPROXY mode can.
	Open OnDown = "open"
	// Closed drops (TPROXY) or refuses (REDIRECT) them.
	Closed OnDown = "closed"
)

// Flow names one TCP connection through or to this host.
type Flow struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
}

// Config says what to divert, and to which listener.
type Config struct {
	// Mode is tproxy.TPROXY or tproxy.Redirect. Default: TPROXY.
	Mode tproxy.Mode `json:"-"`
	// Listen is where the relay listens: at most one address per family. An IPv6
	// wildcard takes both families. An AddrPort without an address, which
	// ParseListen makes of ":9091", takes IPv4, and with IPv6 set, IPv6 too.
	Listen []netip.AddrPort `json:"-"`
	// IPv6 demands that IPv6 is diverted; Validate fails if no listener can.
	IPv6 bool `json:"ipv6,omitempty"`
	// In are the interfaces on which clients' connections come in.
	In []string `json:"in"`
	// Ports are the destination ports to divert. Default: all, but see SSHPorts.
	Ports Ports `json:"ports,omitempty"`
	// Exclude are destinations that are not diverted.
	Exclude []netip.Prefix `json:"exclude,omitempty"`
	// ExcludeClients are clients that are not diverted.
	ExcludeClients []netip.Prefix `json:"exclude_clients,omitempty"`
	// SSHPorts are not diverted unless Ports names the same single port.
	// Default: 22.
	SSHPorts []uint16 `json:"ssh_ports,omitempty"`
	// NoSSHExclusion diverts ssh like any other connection.
	NoSSHExclusion bool `json:"no_ssh_exclusion,omitempty"`
	// Management are connections that are never touched, such as the one over
	// which the operator is logged in (ManagementFromEnv).
	Management []Flow `json:"management,omitempty"`
	// Transparent, in Redirect mode, is for a relay that binds its outgoing
	// connections to the client's address: it adds the socket match and the
	// routing that bring the replies back. TPROXY mode always has them.
	Transparent bool `json:"transparent,omitempty"`
	// OnDown says what happens while no relay listens. Default: OnDownDefault.
	OnDown OnDown `json:"on_down,omitempty"`
	// Backend is NFT or IPTables. Default: NFT.
	Backend Backend `json:"backend"`
	// Mark is the packet mark that routes to the relay. Default: DefaultMark. It
	// must differ from the mark on the relay's own connections.
	Mark uint32 `json:"mark"`
	// Table is the number of the routing table. Default: DefaultTable.
	Table int `json:"table"`
	// SetSysctls lets Apply change kernel settings that stand in the way. Remove
	// restores them. Default: they are left alone.
	SetSysctls bool `json:"set_sysctls,omitempty"`
	// CheckListener has Verify report when nothing listens. Default: no.
	CheckListener bool `json:"-"`
	// StateDir holds the record of what Apply changed. Default: DefaultStateDir.
	StateDir string `json:"-"`
}

// interfaceName is stricter than the kernel: a name is put into rules, where
// quotes, blanks, wildcards (* +) and a leading dash mean something else.
var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_.@=][A-Za-z0-9_.@=:-]{0,14}$`)

// WithDefaults fills in what is unset.
func (c Config) WithDefaults() Config {
	if c.Backend == "" {
		c.Backend = NFT
	}
	if c.Mark == 0 {
		c.Mark = DefaultMark
	}
	if c.Table == 0 {
		c.Table = DefaultTable
	}
	if c.StateDir == "" {
		c.StateDir = DefaultStateDir
	}
	if len(c.SSHPorts) == 0 {
		c.SSHPorts = []uint16{DefaultSSHPort}
	}
	if c.OnDown == OnDownDefault {
		c.OnDown = Closed
		if c.Mode == tproxy.TPROXY && c.Backend == NFT {
			c.OnDown = Open
		}
	}
	return c
}

// Validate says what in c cannot work, in one line. Unset fields count as their
// defaults.
func (c Config) Validate() error {
	c = c.WithDefaults()
	switch {
	case c.Mode != tproxy.TPROXY && c.Mode != tproxy.Redirect:
		return fmt.Errorf("mode %v: want tproxy or redirect; forward mode needs no rules", c.Mode)
	case c.Backend != NFT && c.Backend != IPTables:
		return fmt.Errorf("back end %q: want nft or iptables", string(c.Backend))
	case c.OnDown != Open && c.OnDown != Closed:
		return fmt.Errorf("on down %q: want open or closed", string(c.OnDown))
	case c.OnDown == Open && c.Mode == tproxy.Redirect:
		return errors.New("redirect mode refuses connections while nothing listens: --on-down open needs --mode tproxy and --backend nft")
	case c.OnDown == Open && c.Backend == IPTables:
		return errors.New("iptables TPROXY drops connections while nothing listens: --on-down open needs --backend nft")
	case len(c.In) == 0:
		return errors.New("no interface: say with --in where the clients' connections come in")
	case c.Table < 1 || c.Table > 1<<31-1 || (c.Table >= 253 && c.Table <= 255):
		return fmt.Errorf("table %d: want a number that is not main (254), local (255) or default (253)", c.Table)
	}
	for _, name := range c.In {
		if !interfaceName.MatchString(name) || name == "." || name == ".." {
			return fmt.Errorf("interface %q: not a plain interface name", name)
		}
	}
	for _, p := range slices.Concat(c.Exclude, c.ExcludeClients) {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("excluded network %v: want an IPv4 or IPv6 network", p)
		}
	}
	for _, f := range c.Management {
		if !f.Client.IsValid() || !f.Server.IsValid() || f.Client.Addr().Is4() != f.Server.Addr().Is4() {
			return fmt.Errorf("management connection %v to %v: want two addresses of one family", f.Client, f.Server)
		}
	}
	if err := c.Ports.check(); err != nil {
		return err
	}
	return c.checkListen()
}

// routed says whether packets to foreign addresses must reach local sockets.
func (c Config) routed() bool { return c.Mode == tproxy.TPROXY || c.Transparent }

// sshPorts gives the ports to leave alone: those that Ports does not name.
func (c Config) sshPorts() Ports {
	var out Ports
	if c.NoSSHExclusion {
		return out
	}
	for _, port := range c.SSHPorts {
		if !c.Ports.names(port) {
			out = append(out, PortRange{port, port})
		}
	}
	return out
}
