// Package rules hands connections to the relay: it renders, applies, checks
// and takes down the packet filter rules, the routing and the kernel settings
// that a transparent relay needs, with nft or with iptables, for IPv4 and IPv6.
//
// A complete program:
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"net/netip"
//
//		"github.com/tprelay/tprelay/rules"
//		"github.com/tprelay/tprelay/tproxy"
//	)
//
//	func main() {
//		cfg := rules.Config{
//			Mode:   tproxy.TPROXY,
//			Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9091")},
//			In:     []string{"eth1"},
//		}
//		if err := rules.Apply(context.Background(), cfg); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// Everything acts in the network namespace of the calling thread: a caller that
// moves between namespaces locks its goroutine to the thread. There is one set
// of rules per namespace; Apply replaces it, Remove leaves nothing of it.
//
// What the rules do, in TPROXY mode, with each TCP packet that comes in:
//
//	                       +-- yes --> mark, deliver to the relay
//	not a SYN --> does a transparent socket own it?
//	                       +-- no ---> as if there were no rules
//	an ICMP error about a packet that such a socket sent: likewise
//	SYN ---> ours to divert? (interface, port, not excluded, not this host)
//	                       +-- yes --> tproxy: hand to the listener, mark
//	                       +-- no ---> as if there were no rules
//
// The mark is what `ip rule` looks for; it names a routing table in which every
// address is local. A SYN is never matched against sockets: it could find one in
// TIME_WAIT, skip the listener, and be answered for a dead connection. And what
// is not a SYN is never handed to the listener: connections that began before
// the relay, and those from the other direction, go on undisturbed.
//
// A relay that borrows the client's port as well as its address makes two
// connections that connection tracking takes for one. Their sequence numbers are
// unlike, so it calls most of their packets invalid. That matters only where a
// firewall on the gateway drops those (`ct state invalid drop`): there, most
// connections hang unless net.netfilter.nf_conntrack_tcp_be_liberal is 1 or the
// relay borrows the address only (tproxy.SpoofIP).
package rules
