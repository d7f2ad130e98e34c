// Package relays starts the relays that tpbench compare and tpbench slow measure against each
// other. Each is set up as its own users would set it up; README.md says how, and on whose advice.
//
// Every relay runs on h2 of a lab, between clients on h1 and servers on h3:
//
//	relay, err := relays.Find("haproxy", "")
//	running, err := relay.Start(ctx, relays.Env{Lab: lab, Self: "/proc/self/exe", Listen: listen, Server: server})
//	conn, err := lab.H1.Dial(ctx, "tcp", running.Target().String())
//	err = running.Stop()
//
// Relays that can be transparent get the same packet filter rules, those of package rules, and all
// get the same kernel settings.
package relays

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// Way is how connections come to a relay, and what the server sees of them.
type Way int

const (
	// Direct: there is no relay, h2 forwards packets.
	Direct Way = iota
	// Transparent: clients connect to the server, TPROXY rules divert the connections to the relay,
	// and it binds the other side to the client's address and port, which the server sees.
	Transparent
	// Redirect: the same with REDIRECT rules; the server sees the relay.
	Redirect
	// Forward: clients connect to the relay itself; the server sees the relay.
	Forward
)

// String is the way in a word.
func (w Way) String() string {
	switch w {
	case Direct:
		return "direct"
	case Transparent:
		return "transparent"
	case Redirect:
		return "redirect"
	case Forward:
		return "forward"
	}
	return fmt.Sprintf("Way(%d)", int(w))
}

// mode is how packet filter rules divert connections to a relay: none for Direct and Forward.
func (w Way) mode() (mode tproxy.Mode, diverted bool) {
	switch w {
	case Transparent:
		return tproxy.TPROXY, true
	case Redirect:
		return tproxy.Redirect, true
	}
	return 0, false
}

// Relay is a relay that can be measured.
type Relay struct {
	// Name is what it is called on the command line.
	Name string
	// Title is what it is called in tables, with its real version.
	Title string
	// Advice says why it is configured as it is, and who says so.
	Advice string
	// Way is how connections come to it.
	Way Way
	// Default says that it is measured when no relays are named, and Variant that it is another
	// setting of such a relay: then it is measured with principal workloads only.
	Default, Variant bool

	program string // what has to be installed; "" if nothing has
	debian  string // the package that has it
	shares  bool   // several processes of it may listen on one port (SO_REUSEPORT)
	both    bool   // it takes connections from REDIRECT rules as well as from TPROXY
	recipe  recipe
}

// Env is what a relay is started in.
type Env struct {
	Lab *netlab.Lab
	// Self and TPRelay are the paths of tpbench and of tprelay.
	Self, TPRelay string
	// Listen is where the relay accepts connections, IPv4. TPROXY diverts them to any address, also
	// 127.0.0.1; with Redirect and Forward only the port counts, and the address is h2's towards
	// h1. Forward also takes the next port.
	Listen netip.AddrPort
	// Server is the server on h3, IPv4. There is another one on the next port.
	Server netip.AddrPort
	// Flags are added to the command line of tprelay, whatever its variant.
	Flags []string
	// Processes is how many processes of the relay share the listening port. Default: 1.
	Processes int
}

// List is relays in the order in which they are listed.
type List []Relay

// All returns every relay, direct first. command is what --relay-command says; without it the relay
// of that name is left out. All runs programs to get their versions: call it once.
func All(command string) List {
	all := slices.Concat(List{direct()}, tprelays(), haproxies(), iocopies(), gnets(), List{socat(), tokenBucket()})
	if command != "" {
		all = append(all, OfCommand(command))
	}
	return all
}

// Find returns the relay of that name among all. See [List.Find] for several.
func Find(name, command string) (Relay, error) { return All(command).Find(name) }

// Find returns the relay of that name. The error lists the names.
func (all List) Find(name string) (Relay, error) {
	var names []string
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if name == commandName {
		return Relay{}, fmt.Errorf("relay %q: say with --relay-command what to run", name)
	}
	return Relay{}, fmt.Errorf("relay %q: there is none of that name; there are %s", name, strings.Join(names, ", "))
}

// Redirected is the same relay with REDIRECT rules in place of TPROXY's, and [Direct] itself.
func (p Relay) Redirected() (Relay, error) {
	if p.Way == Transparent && !p.both {
		return p, fmt.Errorf("relay %s: works with TPROXY only", p.Name)
	}
	if p.Way == Transparent {
		p.Way = Redirect
	}
	return p, nil
}

// Missing says in one line what has to be installed before the relay can be started, or "".
func (p Relay) Missing() string {
	if p.program == "" {
		return ""
	}
	if _, err := lookup(p.program); err != nil {
		return fmt.Sprintf("%s is not installed; apt-get install %s", p.program, p.debian)
	}
	return ""
}
