package rules

import (
	"fmt"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
)

// The chains of tprelay. They hold all of its iptables rules except the jump to chainMain.
const (
	chainMain = "TPRELAY"
	chainMark = "TPRELAY_MARK"
)

// iptablesJump is the only rule outside these chains.
const iptablesJump = "PREROUTING -j " + chainMain

// xtable is the part of the rules that belongs to one iptables table.
type xtable struct {
	name   string
	chains []string
	lines  []line
	// stale are chains of an earlier apply that these rules do not use.
	stale []string
}

// iptablesTables returns the rules for the family of t.
func (c Config) iptablesTables(t target) []xtable {
	var tables []xtable
	mangle := xtable{name: "mangle", chains: []string{chainMain}}
	if c.routed() {
		mangle.chains = append(mangle.chains, chainMark)
		mangle.lines = append(mangle.lines, c.iptablesManagement(t)...)
		mangle.lines = append(mangle.lines, line{whySocket, "-A " + chainMain + " -p tcp ! --syn -m socket --transparent -j " + chainMark})
		why := whyICMP
		for _, name := range t.icmpErrors {
			mangle.lines = append(mangle.lines, line{why, fmt.Sprintf("-A %s -p %s --%s-type %s -m socket --transparent -j %s",
				chainMain, t.icmp, t.icmp, name, chainMark)})
			why = ""
		}
		mangle.lines = append(mangle.lines,
			line{whyMark, fmt.Sprintf("-A %s -j MARK --set-mark %#x", chainMark, c.Mark)},
			line{"", "-A " + chainMark + " -j ACCEPT"})
	}
	if c.Mode == tproxy.TPROXY {
		on := fmt.Sprintf("-j TPROXY --on-port %d --tproxy-mark %#x/0xffffffff", t.port, c.Mark)
		if t.addr.IsValid() {
			on = fmt.Sprintf("-j TPROXY --on-ip %v --on-port %d --tproxy-mark %#x/0xffffffff", t.addr, t.port, c.Mark)
		}
		mangle.lines = append(mangle.lines, c.iptablesExclusions(t)...)
		mangle.lines = append(mangle.lines, c.iptablesNew(whyTproxy+" "+whyDropNature, on)...)
	} else if t.addr.IsLoopback() {
		for i, name := range c.In {
			why := whyGuard
			if i > 0 {
				why = ""
			}
			mangle.lines = append(mangle.lines, line{why, fmt.Sprintf("-A %s -i %s -d 127.0.0.0/8 -j DROP", chainMain, name)})
		}
	}
	if len(mangle.lines) > 0 {
		tables = append(tables, mangle)
	}
	if c.Mode == tproxy.Redirect {
		why, verdict := whyRedirect, fmt.Sprintf("-j REDIRECT --to-ports %d", t.port)
		if t.addr.IsValid() {
			why, verdict = whyDNAT, fmt.Sprintf("-j DNAT --to-destination %v", t)
		}
		nat := xtable{name: "nat", chains: []string{chainMain}}
		nat.lines = append(nat.lines, c.iptablesManagement(t)...)
		nat.lines = append(nat.lines, c.iptablesExclusions(t)...)
		nat.lines = append(nat.lines, c.iptablesNew(why, verdict)...)
		tables = append(tables, nat)
	}
	return tables
}

// iptablesNew returns the rules that divert new connections: one for each interface and list
// of ports, because a rule can name only 15 ports.
func (c Config) iptablesNew(why, verdict string) []line {
	var lines []line
	for _, name := range c.In {
		for _, list := range c.Ports.multiport() {
			match := ""
			if list != "" {
				match = "-m multiport --dports " + list + " "
			}
			lines = append(lines, line{why, fmt.Sprintf("-A %s -i %s -p tcp --syn %s%s", chainMain, name, match, verdict)})
			why = ""
		}
	}
	return lines
}

func (c Config) iptablesExclusions(t target) []line {
	lines := []line{{whyLocal, "-A " + chainMain + " -p tcp -m addrtype --dst-type LOCAL -j RETURN"}}
	if ports := c.sshPorts(); len(ports) > 0 {
		why := whySSH
		for _, list := range ports.multiport() {
			lines = append(lines, line{why, fmt.Sprintf("-A %s -p tcp -m multiport --dports %s -j RETURN", chainMain, list)})
			why = ""
		}
	}
	why := whyDest
	for _, network := range ofFamily(c.Exclude, t.family) {
		lines = append(lines, line{why, fmt.Sprintf("-A %s -d %s -j RETURN", chainMain, network)})
		why = ""
	}
	why = whyClient
	for _, network := range ofFamily(c.ExcludeClients, t.family) {
		lines = append(lines, line{why, fmt.Sprintf("-A %s -s %s -j RETURN", chainMain, network)})
		why = ""
	}
	return lines
}

func (c Config) iptablesManagement(t target) []line {
	var lines []line
	for _, m := range c.Management {
		if m.Client.Addr().Is6() == t.v6 {
			lines = append(lines, line{whyManagement, fmt.Sprintf("-A %s -s %v -d %v -p tcp --sport %d --dport %d -j RETURN",
				chainMain, m.Client.Addr(), m.Server.Addr(), m.Client.Port(), m.Server.Port())})
		}
	}
	return lines
}

// iptablesText renders tables for `iptables-restore --noflush`. It creates or empties the
// chains and fills them, in one transaction per table.
func iptablesText(tables []xtable) string {
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "*%s\n", t.name)
		comment(&b, "", "The chains of tprelay: created, or emptied if they exist.")
		for _, name := range t.chains {
			fmt.Fprintf(&b, ":%s - [0:0]\n", name)
		}
		for _, name := range t.stale {
			fmt.Fprintf(&b, ":%s - [0:0]\n", name)
		}
		block(&b, "", t.lines)
		for _, name := range t.stale {
			fmt.Fprintf(&b, "-X %s\n", name)
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
