package rules

import (
	"fmt"
	"strings"
)

// Render returns a commented shell script that does the same as Apply, except that it writes
// no record for Remove. Render needs no privileges and does not look at the host. c must be
// valid (Validate).
func (c Config) Render() string {
	c = c.WithDefaults()
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	comment(&b, "", "Rules for: tprelay rules apply "+c.Flags())
	b.WriteString("set -e\n")
	if c.routed() {
		b.WriteByte('\n')
		for _, f := range c.families() {
			block(&b, "", c.routingLines(f))
		}
	}
	b.WriteByte('\n')
	if c.Backend == NFT {
		comment(&b, "", "The packet filter rules.")
		fmt.Fprintf(&b, "nft -f - <<'EOF'\n%sEOF\n", c.nftText())
	} else {
		c.iptablesScript(&b)
	}
	b.WriteByte('\n')
	comment(&b, "", "Kernel settings that these rules need. Run a line if the current value differs (tprelay rules verify lists "+
		"those), or use `tprelay rules apply --set-sysctls`, whose changes remove restores.")
	for _, w := range c.sysctls() {
		comment(&b, "", w.why)
		fmt.Fprintf(&b, "# %s\n", w.command())
	}
	if c.routed() {
		comment(&b, "", whyTracking)
		b.WriteString("# sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1\n")
	}
	b.WriteByte('\n')
	comment(&b, "", "To remove everything: tprelay rules remove, or:")
	for _, command := range c.teardown() {
		fmt.Fprintf(&b, "# %s\n", command)
	}
	return b.String()
}

// routingLines returns the commands that set up the routing of a family.
func (c Config) routingLines(f family) []line {
	rule := fmt.Sprintf("priority %d fwmark %#x lookup %d", rulePriority, c.Mark, c.Table)
	return []line{
		{"Packets with the mark use a routing table of their own. (Deleted first, because adding it twice is an error.)",
			fmt.Sprintf("%s rule del %s 2>/dev/null || true", f.ip, rule)},
		{"", fmt.Sprintf("%s rule add %s", f.ip, rule)},
		{"In that table every address is local, so the packets reach sockets of this host instead of being forwarded.",
			fmt.Sprintf("%s route replace local default dev lo table %d", f.ip, c.Table)},
	}
}

func (c Config) iptablesScript(b *strings.Builder) {
	for _, t := range c.targets() {
		tables := c.iptablesTables(t)
		comment(b, "", "The packet filter rules for "+t.nfproto+".")
		fmt.Fprintf(b, "%s-restore --noflush -w 5 <<'EOF'\n%sEOF\n", t.iptables, iptablesText(tables))
		why := "The jump to these chains: added once, after they are complete."
		for _, table := range tables {
			comment(b, "", why)
			fmt.Fprintf(b, "%s -w 5 -t %s -C %s 2>/dev/null ||\n\t%s -w 5 -t %s -I %s\n",
				t.iptables, table.name, iptablesJump, t.iptables, table.name, iptablesJump)
			why = ""
		}
	}
}

// teardown returns the commands that undo Render.
func (c Config) teardown() []string {
	var out []string
	if c.Backend == NFT {
		out = append(out, "nft delete table "+nftTable)
	}
	for _, t := range c.targets() {
		if c.Backend == IPTables {
			for _, table := range c.iptablesTables(t) {
				out = append(out, fmt.Sprintf("%s -w 5 -t %s -D %s", t.iptables, table.name, iptablesJump))
				for _, name := range table.chains {
					out = append(out, fmt.Sprintf("%s -w 5 -t %s -F %s", t.iptables, table.name, name))
				}
				for _, name := range table.chains {
					out = append(out, fmt.Sprintf("%s -w 5 -t %s -X %s", t.iptables, table.name, name))
				}
			}
		}
		if c.routed() {
			out = append(out,
				fmt.Sprintf("%s rule del priority %d fwmark %#x lookup %d", t.ip, rulePriority, c.Mark, c.Table),
				fmt.Sprintf("%s route del local default dev lo table %d", t.ip, c.Table))
		}
	}
	return out
}
