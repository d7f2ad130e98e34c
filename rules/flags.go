package rules

import (
	"fmt"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
)

// Flags returns c as flags of `tprelay rules`, without those that have their default.
func (c Config) Flags() string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	plain, d := Config{Mode: c.Mode, Backend: c.Backend}.WithDefaults(), c.WithDefaults()

	add("--mode %v", d.Mode)
	for _, l := range c.Listen {
		if l.Addr().IsValid() {
			add("--listen %v", l)
		} else {
			add("--listen :%d", l.Port())
		}
	}
	for _, name := range c.In {
		add("--in %s", name)
	}
	if len(c.Ports) > 0 {
		add("--dport %v", c.Ports)
	}
	if d.Backend != NFT {
		add("--backend %s", d.Backend)
	}
	if c.IPv6 {
		add("--ipv6")
	}
	if d.OnDown != plain.OnDown {
		add("--on-down %s", d.OnDown)
	}
	for _, p := range c.Exclude {
		add("--exclude %v", p)
	}
	for _, p := range c.ExcludeClients {
		add("--exclude-client %v", p)
	}
	switch {
	case c.NoSSHExclusion:
		add("--no-ssh-exclusion")
	case len(d.SSHPorts) != 1 || d.SSHPorts[0] != DefaultSSHPort:
		for _, port := range d.SSHPorts {
			add("--ssh-port %d", port)
		}
	}
	if c.Transparent && c.Mode == tproxy.Redirect {
		add("--transparent")
	}
	if d.Mark != DefaultMark {
		add("--mark %#x", d.Mark)
	}
	if d.Table != DefaultTable {
		add("--table %d", d.Table)
	}
	if c.SetSysctls {
		add("--set-sysctls")
	}
	if d.StateDir != DefaultStateDir {
		add("--state %s", d.StateDir)
	}
	return strings.Join(out, " ")
}
