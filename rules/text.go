package rules

import (
	"fmt"
	"net/netip"
	"strings"
)

// line is one line of rules, with the reason for it.
type line struct{ why, text string }

// block writes lines, each below its reason as a comment.
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

// ofFamily gives the networks of one family, without those that lie within
// another: nft refuses a set with overlapping networks.
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

// Why the rules are as they are; both back ends say the same.
const (
	whyManagement = "The connection over which the operator is logged in is never touched."
	whySocket     = "A packet that a transparent socket of the relay owns is delivered to it: from clients, " +
		"and from servers to the client addresses that the relay borrows, on any interface. Not SYNs: a client that " +
		"reuses a port may find its old connection in TIME_WAIT here; its SYN would go to that and not to the " +
		"listener, be answered for a dead connection, and stall for 200 ms to 1 s."
	whyICMP = "What a router has to say about a packet that the relay sent in a client's (or server's) name is addressed to that " +
		"name. Passed on there it would do no good: where a link ahead is smaller, the relay would never make smaller segments, " +
		"and transfers would hang for ever; an unreachable host would be noticed by a timeout only. The socket match reads " +
		"the packet inside the error; errors about other connections take their usual way."
	whyWildcard = "The listener itself is no connection: without this line, packets of foreign connections to the " +
		"same port number would be taken for the relay's."
	whyMark   = "The mark makes the routing rule deliver the packet here, whatever its destination."
	whyLocal  = "What is meant for this host itself is not diverted."
	whySSH    = "ssh is not diverted, so that nobody locks himself out. (Name its port in --dport to divert it.)"
	whyDest   = "Destinations that are excluded."
	whyClient = "Clients that are excluded."
	whyTproxy = "New connections go to the relay's listener, unchanged, and carry the mark. Only SYNs: connections that " +
		"began before the relay, and those from the other direction, go on undisturbed."
	whyClosed = "On down closed: while nothing listens, the line above does not match, and new connections are dropped here. " +
		"Without this line they would pass to their destination."
	whyOpen       = "On down open: while nothing listens, the line above does not match, and new connections pass to their destination."
	whyDropNature = "On down closed: while nothing listens, TPROXY drops new connections."
	whyGuard      = "route_localnet, which the loopback listener needs, would open every service on 127.0.0.0/8 to the network: not from there."
	whyRedirect   = "New connections go to the relay's listener; connection tracking remembers their destination. REDIRECT turns to the " +
		"address of the interface they came in on, so the listener must be on all addresses. While nothing listens they are refused."
	whyTracking = "Only where a firewall on this host drops packets that connection tracking calls invalid (ct state invalid drop), and " +
		"the relay borrows the client's port too (--spoof full): both its connections then look like one, and most would hang. " +
		"Neither --set-sysctls nor verify looks at this; --spoof ip does without it."
	whyDNAT = "New connections go to the relay's listener; connection tracking remembers their destination. DNAT, because REDIRECT knows " +
		"only the address of the incoming interface. While nothing listens they are refused."
)
