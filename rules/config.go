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
	// DefaultMark and DefaultTable avoid 1 and 100, which the kernel's documentation uses
	// and which are taken on many hosts.
	DefaultMark  = 0x7470
	DefaultTable = 7470
	// DefaultSSHPort is the port that is not diverted.
	DefaultSSHPort = 22
	// DefaultStateDir is the directory of the record that Remove needs.
	DefaultStateDir = "/run/tprelay"
)

// rulePriority is the priority of the `ip rule`: after the local table (0), before the rules
// that VPNs and policy routing commonly add.
const rulePriority = 100

// Backend is the program that loads packet filter rules.
type Backend string

const (
	NFT      Backend = "nft"
	IPTables Backend = "iptables"
)

// OnDown says what happens to new connections while no relay listens.
type OnDown string

const (
	// OnDownDefault is Open with nft in TPROXY mode, otherwise Closed.
	OnDownDefault OnDown = ""
	// Open lets them pass to their destination. It needs nft and TPROXY mode.
	Open OnDown = "open"
	// Closed drops (TPROXY) or resets (REDIRECT) them.
	Closed OnDown = "closed"
)

// Flow names one TCP connection through or to this host.
type Flow struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
}

// Config describes which connections to divert, and to which listener.
type Config struct {
	// Mode is tproxy.TPROXY or tproxy.Redirect. Default: TPROXY.
	Mode tproxy.Mode `json:"-"`
	// Listen are the addresses of the relay's listeners: at most one per family. An IPv6
	// wildcard serves both families. An AddrPort without an address, which ParseListen
	// returns for ":9091", serves IPv4, and IPv6 too if IPv6 is set.
	Listen []netip.AddrPort `json:"-"`
	// IPv6 requires that IPv6 is diverted. Validate fails if no listener serves it.
	IPv6 bool `json:"ipv6,omitempty"`
	// In are the interfaces on which clients' connections arrive.
	In []string `json:"in"`
	// Ports are the destination ports to divert. Default: all except SSHPorts.
	Ports Ports `json:"ports,omitempty"`
	// Exclude are destinations that are not diverted.
	Exclude []netip.Prefix `json:"exclude,omitempty"`
	// ExcludeClients are clients that are not diverted.
	ExcludeClients []netip.Prefix `json:"exclude_clients,omitempty"`
	// SSHPorts are not diverted, unless Ports lists the same port by itself. Default: 22.
	SSHPorts []uint16 `json:"ssh_ports,omitempty"`
	// NoSSHExclusion diverts ssh like any other connection.
	NoSSHExclusion bool `json:"no_ssh_exclusion,omitempty"`
	// Management are connections that the rules never match, such as the operator's ssh
	// connection (ManagementFromEnv).
	Management []Flow `json:"management,omitempty"`
	// Transparent, in Redirect mode, is for a relay that binds its outgoing connections to
	// the client's address. It adds the socket match and the routing that deliver the
	// replies to the relay. TPROXY mode always has them.
	Transparent bool `json:"transparent,omitempty"`
	// OnDown says what happens while no relay listens. Default: OnDownDefault.
	OnDown OnDown `json:"on_down,omitempty"`
	// Backend is NFT or IPTables. Default: NFT.
	Backend Backend `json:"backend"`
	// Mark is the packet mark that the routing rule matches. It must differ from the mark
	// of the relay's own connections. Default: DefaultMark.
	Mark uint32 `json:"mark"`
	// Table is the number of the routing table. Default: DefaultTable.
	Table int `json:"table"`
	// SetSysctls makes Apply change kernel settings that would break the rules. Remove
	// restores them. Default: settings are not changed.
	SetSysctls bool `json:"set_sysctls,omitempty"`
	// CheckListener makes Verify report listeners that are missing. Default: false.
	CheckListener bool `json:"-"`
	// StateDir holds the record of what Apply changed. Default: DefaultStateDir.
	StateDir string `json:"-"`
}

// interfaceName is stricter than the kernel, because quotes, blanks, wildcards (* +) and a
// leading dash have a meaning in rules.
var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_.@=][A-Za-z0-9_.@=:-]{0,14}$`)

// WithDefaults returns c with defaults in place of zero values.
func (c Config) WithDefaults() Config {
	if c.Mode == 0 {
		c.Mode = tproxy.TPROXY
	}
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

// Validate returns an error of one line if c cannot work. Zero values stand for their
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
		return errors.New("no interface: name with --in the interface on which clients' connections arrive")
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

// routed reports whether packets to foreign addresses must reach local sockets.
func (c Config) routed() bool { return c.Mode == tproxy.TPROXY || c.Transparent }

// sshPorts returns the ports that are not diverted: SSHPorts without those in Ports.
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
