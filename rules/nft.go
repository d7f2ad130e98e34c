package rules

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
)

// nftTable is the table that holds all nft rules of tprelay, and no others.
const nftTable = "inet tprelay"

// chain is one chain of rules. Without a hook, other chains jump to it.
type chain struct {
	name, why, hook string
	lines           []line
}

// nftText renders the table for `nft -f -`. The text declares the table, deletes it and
// declares it again in one transaction, so the kernel switches from the old rules to the new
// ones at once.
func (c Config) nftText() string {
	var b strings.Builder
	block(&b, "", []line{
		{"Replace the whole table in one transaction, whether or not it exists.", "table " + nftTable + " {}"},
		{"", "delete table " + nftTable},
		{"", "table " + nftTable + " {"},
	})
	for i, ch := range c.nftChains() {
		if i > 0 {
			b.WriteByte('\n')
		}
		comment(&b, "\t", ch.why)
		fmt.Fprintf(&b, "\tchain %s {\n", ch.name)
		if ch.hook != "" {
			fmt.Fprintf(&b, "\t\t%s\n", ch.hook)
		}
		block(&b, "\t\t", ch.lines)
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// nftChains turns c into nft rules, as iptablesTables (iptables.go) does for iptables. routing
// (routing.go) and sysctls (sysctl.go) return the rest of what c needs. The rule that diverts a SYN
// is in nftPrerouting, or in nftRedirect for REDIRECT.
func (c Config) nftChains() []chain {
	var chains []chain
	if c.routed() {
		chains = append(chains, chain{
			name: "established",
			why:  "Packets that are not SYNs, and ICMP errors: do they belong to a transparent socket of the relay?",
			lines: []line{
				{whyWildcard, "socket wildcard 1 return"},
				{whyMark, fmt.Sprintf("socket transparent 1 meta mark set %#x accept", c.Mark)},
			},
		})
	}
	if lines := c.nftPrerouting(); len(lines) > 0 {
		chains = append(chains, chain{
			name:  "prerouting",
			why:   "Gets every incoming packet before it is routed.",
			hook:  "type filter hook prerouting priority mangle; policy accept;",
			lines: lines,
		})
	}
	if c.Mode == tproxy.Redirect {
		chains = append(chains, chain{
			name:  "divert",
			why:   "Gets the first packet of every incoming connection.",
			hook:  "type nat hook prerouting priority dstnat; policy accept;",
			lines: c.nftRedirect(),
		})
	}
	return chains
}

// nftPrerouting returns the rules before routing. In TPROXY mode the rule with nftSYN diverts
// new connections; another match goes in front of its verdict.
func (c Config) nftPrerouting() []line {
	var lines []line
	if c.routed() {
		lines = append(lines, c.nftManagement()...)
		lines = append(lines, line{whySocket, c.nftFamily() + "tcp flags & (fin|syn|rst|ack) != syn jump established"})
		why := whyICMP
		for _, f := range c.families() {
			lines = append(lines, line{why, fmt.Sprintf("%s type { %s } jump established", f.icmp, strings.Join(f.icmpErrors, ", "))})
			why = ""
		}
	}
	if c.Mode == tproxy.Redirect {
		for _, t := range c.targets() {
			if t.addr.IsLoopback() {
				lines = append(lines, line{whyGuard, fmt.Sprintf("%s ip daddr 127.0.0.0/8 drop", c.nftIn())})
			}
		}
		return lines
	}
	lines = append(lines, c.nftExclusions()...)
	for i, t := range c.targets() {
		why := whyTproxy
		if i > 0 {
			why = ""
		}
		lines = append(lines, line{why, fmt.Sprintf("%s meta nfproto %s %s tproxy %s to %v meta mark set %#x accept",
			c.nftIn(), t.nfproto, c.nftSYN(), t.nft, t, c.Mark)})
	}
	if c.OnDown == Open {
		return append(lines, line{whyOpen, ""})
	}
	return append(lines, line{whyClosed, fmt.Sprintf("%s %s%s drop", c.nftIn(), c.nftFamily(), c.nftSYN())})
}

func (c Config) nftRedirect() []line {
	lines := append(c.nftManagement(), c.nftExclusions()...)
	why := ""
	for _, t := range c.targets() {
		reason, verdict := whyRedirect, fmt.Sprintf("redirect to :%d", t.port)
		if t.addr.IsValid() {
			reason, verdict = whyDNAT, fmt.Sprintf("dnat %s to %v", t.nft, t)
		}
		if reason == why {
			reason = ""
		} else {
			why = reason
		}
		lines = append(lines, line{reason, fmt.Sprintf("%s meta nfproto %s %s %s",
			c.nftIn(), t.nfproto, c.nftSYN(), verdict)})
	}
	return lines
}

// nftExclusions returns the rules for new connections that are not diverted.
func (c Config) nftExclusions() []line {
	lines := []line{{whyLocal, "fib daddr type local return"}}
	if ports := c.sshPorts(); len(ports) > 0 {
		lines = append(lines, line{whySSH, "tcp dport " + nftPorts(ports) + " return"})
	}
	add := func(why, end string, networks []netip.Prefix) {
		for _, f := range c.families() {
			if of := ofFamily(networks, f); len(of) > 0 {
				lines = append(lines, line{why, fmt.Sprintf("%s %s { %s } return", f.nft, end, strings.Join(of, ", "))})
				why = ""
			}
		}
	}
	add(whyDest, "daddr", c.Exclude)
	add(whyClient, "saddr", c.ExcludeClients)
	return lines
}

func (c Config) nftManagement() []line {
	var lines []line
	for _, m := range c.Management {
		f := "ip"
		if m.Client.Addr().Is6() {
			f = "ip6"
		}
		lines = append(lines, line{whyManagement, fmt.Sprintf("%s saddr %v %s daddr %v tcp sport %d tcp dport %d return",
			f, m.Client.Addr(), f, m.Server.Addr(), m.Client.Port(), m.Server.Port())})
	}
	return lines
}

// nftIn returns the match for the incoming interfaces.
func (c Config) nftIn() string {
	if len(c.In) == 1 {
		return fmt.Sprintf("iifname %q", c.In[0])
	}
	quoted := make([]string, len(c.In))
	for i, name := range c.In {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return "iifname { " + strings.Join(quoted, ", ") + " }"
}

// nftSYN returns the match for the first packet of a connection to the ports of c.
func (c Config) nftSYN() string {
	syn := "tcp flags & (fin|syn|rst|ack) == syn"
	if len(c.Ports) == 0 {
		return syn
	}
	return "tcp dport " + nftPorts(c.Ports) + " " + syn
}

// nftFamily returns the match for the diverted family, or "" if both are diverted.
func (c Config) nftFamily() string {
	if families := c.families(); len(families) == 1 {
		return "meta nfproto " + families[0].nfproto + " "
	}
	return ""
}

func nftPorts(p Ports) string {
	return "{ " + strings.ReplaceAll(p.String(), ",", ", ") + " }"
}
