package rules

import (
	"fmt"
	"strings"
)

// Render gives everything that Apply would do as a commented shell script, which
// does the same when run (but records nothing for Remove to restore). It neither
// needs privileges nor looks at the host. c must be valid (Validate).
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
	comment(&b, "", "Kernel settings that these rules need. Each is only a suggestion here; run the line where the present "+
		"value differs (tprelay rules verify tells), or let `tprelay rules apply --set-sysctls` do it, which also restores them.")
	for _, w := range c.sysctls() {
		comment(&b, "", w.why)
		fmt.Fprintf(&b, "# %s\n", w.command())
	}
	if c.routed() {
		comment(&b, "", whyTracking)
		b.WriteString("# sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1\n")
	}
	b.WriteByte('\n')
	comment(&b, "", "To take it all down: tprelay rules remove, or:")
	for _, command := range c.teardown() {
		fmt.Fprintf(&b, "# %s\n", command)
	}
	return b.String()
}

// routingLines gives the routing half as commands, for the reader and for sh.
func (c Config) routingLines(f family) []line {
	rule := fmt.Sprintf("priority %d fwmark %#x lookup %d", rulePriority, c.Mark, c.Table)
	return []line{
		{"Packets with the mark are looked up in a table of their own. (Deleted first, for adding it twice is an error.)",
			fmt.Sprintf("%s rule del %s 2>/dev/null || true", f.ip, rule)},
		{"", fmt.Sprintf("%s rule add %s", f.ip, rule)},
		{"In that table every address is local, so the packets come to sockets here instead of being forwarded.",
			fmt.Sprintf("%s route replace local default dev lo table %d", f.ip, c.Table)},
	}
}

func (c Config) iptablesScript(b *strings.Builder) {
	for _, t := range c.targets() {
		tables := c.iptablesTables(t)
		comment(b, "", "The packet filter rules for "+t.nfproto+".")
		fmt.Fprintf(b, "%s-restore --noflush -w 5 <<'EOF'\n%sEOF\n", t.iptables, iptablesText(tables))
		why := "The way into our chains, once, and only now that they are complete."
		for _, table := range tables {
			comment(b, "", why)
			fmt.Fprintf(b, "%s -w 5 -t %s -C %s 2>/dev/null ||\n\t%s -w 5 -t %s -I %s\n",
				t.iptables, table.name, iptablesJump, t.iptables, table.name, iptablesJump)
			why = ""
		}
	}
}

// teardown gives the commands that undo Render.
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
