// Package rules diverts connections to the relay. It renders, applies, verifies and removes
// the packet filter rules, the routing and the kernel settings that a transparent relay
// needs, with nft or iptables, for IPv4 and IPv6. The package has no stability promise yet.
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
// All functions act on the network namespace of the calling thread. A caller that moves
// between namespaces locks its goroutine to the thread. There is one set of rules per
// namespace: Apply replaces it, Remove deletes all of it.
//
// In TPROXY mode, the rules handle each incoming TCP packet as follows:
//
//	                       +-- yes --> mark, deliver to the relay
//	not a SYN --> does a transparent socket own it?
//	                       +-- no ---> as if there were no rules
//	an ICMP error about a packet that such a socket sent: likewise
//	SYN ---> to be diverted? (interface, port, not excluded, not this host)
//	                       +-- yes --> tproxy: assign to the listener, mark
//	                       +-- no ---> as if there were no rules
//
// `ip rule` matches the mark and selects a routing table in which every address is local. A
// SYN is never matched against sockets: it could match one in TIME_WAIT, miss the listener,
// and be answered on behalf of a dead connection. Packets that are not SYNs are never
// assigned to the listener, so connections that began before the relay, and connections in
// the other direction, are not affected.
//
// A relay that uses the client's port as well as its address has two connections with the
// same addresses and ports, which connection tracking takes for one. Their sequence numbers
// differ, so most of their packets count as invalid. This matters only if a firewall on the
// gateway drops such packets (`ct state invalid drop`): most connections then hang unless
// net.netfilter.nf_conntrack_tcp_be_liberal is 1 or the relay uses only the address
// (tproxy.SpoofIP).
package rules
