package rules

import (
	"fmt"
	"net/netip"
	"strings"
)

// line is one line of rules and the reason for it.
type line struct{ why, text string }

// block writes lines, each after a comment with its reason.
func block(b *strings.Builder, indent string, lines []line) {
	for _, l := range lines {
		comment(b, indent, l.why)
		if l.text != "" {
			fmt.Fprintf(b, "%s%s\n", indent, l.text)
		}
	}
}

// comment writes text as comment lines of at most about 90 columns.
func comment(b *strings.Builder, indent, text string) {
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
			b.WriteString(indent + "#")
			width = len(indent) + 1
		case width+len(word) > 88:
			b.WriteString("\n" + indent + "#")
			width = len(indent) + 1
		}
		b.WriteString(" " + word)
		width += len(word) + 1
	}
	if width > 0 {
		b.WriteByte('\n')
	}
}

// ofFamily returns the networks of one family, without those that lie within another one,
// because nft refuses a set with overlapping networks.
func ofFamily(networks []netip.Prefix, f family) []string {
	var out []string
	for i, p := range networks {
		covered := false
		for j, other := range networks {
			wider := other.Bits() < p.Bits() || (other.Bits() == p.Bits() && j < i)
			covered = covered || (j != i && wider && other.Overlaps(p))
		}
		if p.Addr().Is6() == f.v6 && !covered {
			out = append(out, p.Masked().String())
		}
	}
	return out
}

// The reasons for the rules. Both back ends print the same texts.
const (
	whyManagement = "The operator's ssh connection is never diverted."
	whySocket     = "A packet of a transparent socket of the relay is delivered to that socket: packets from clients, " +
		"and from servers to the clients' addresses that the relay uses, on any interface. SYNs are excepted: if a client " +
		"reuses a port whose old connection is in TIME_WAIT here, its SYN would match that connection instead of the " +
		"listener, be answered for a dead connection, and stall for 200 ms to 1 s."
	whyICMP = "ICMP errors about packets that the relay sent from a client's (or server's) address are addressed to that " +
		"address. They must reach the relay: otherwise it would never send smaller segments where a link has a smaller MTU, " +
		"and transfers would hang for ever; an unreachable host would be noticed only by a timeout. The socket match reads " +
		"the packet inside the error; errors about other connections are forwarded as usual."
	whyWildcard = "The listener itself is not a connection: without this line, packets of other connections to the " +
		"same port number would be delivered to the relay."
	whyMark   = "The mark makes the routing rule deliver the packet to this host, whatever its destination."
	whyLocal  = "Connections to this host itself are not diverted."
	whySSH    = "ssh is not diverted, so that the operator is not locked out. (Name its port in --dport to divert it.)"
	whyDest   = "Excluded destinations."
	whyClient = "Excluded clients."
	whyTproxy = "New connections go to the relay's listener unchanged, with the mark. Only SYNs: connections that " +
		"began before the relay, and those from the other direction, are not affected."
	whyClosed = "On down closed: while nothing listens, the line above does not match, and new connections are dropped here. " +
		"Without this line they would pass to their destination."
	whyOpen       = "On down open: while nothing listens, the line above does not match, and new connections pass to their destination."
	whyDropNature = "On down closed: while nothing listens, TPROXY drops new connections."
	whyGuard      = "route_localnet, which the loopback listener needs, would open every service on 127.0.0.0/8 to the network. This line prevents that."
	whyRedirect   = "New connections go to the relay's listener; connection tracking remembers their destination. REDIRECT sends them to the " +
		"address of the interface on which they arrived, so the listener must be on all addresses. While nothing listens they are refused."
	whyTracking = "Needed only if a firewall on this host drops invalid packets (ct state invalid drop) and the relay uses the client's " +
		"port too (--spoof full): both its connections then look like one to connection tracking, and most would hang. " +
		"Neither --set-sysctls nor verify checks this; --spoof ip does not need it."
	whyDNAT = "New connections go to the relay's listener; connection tracking remembers their destination. DNAT, because REDIRECT can " +
		"use only the address of the incoming interface. While nothing listens they are refused."
)
