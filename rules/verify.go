package rules

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Problem is one missing or wrong rule or setting. Fix is the shell command that puts it
// right, or empty where there is none.
type Problem struct{ What, Fix string }

// String returns both on one line.
func (p Problem) String() string {
	if p.Fix == "" {
		return p.What
	}
	return p.What + "; fix: " + p.Fix
}

// Verify compares the network namespace of the calling thread with c and returns one
// Problem for each missing or wrong rule and setting. It changes nothing. An error means
// that the check itself failed; the problems found before it are still returned.
func Verify(ctx context.Context, c Config) ([]Problem, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := privileged(); err != nil {
		return nil, err
	}
	// The applied rules name the ssh connection of whoever applied them, not the caller's.
	s, err := loadState(c.StateDir)
	if err != nil {
		return nil, err
	}
	if s != nil {
		c.Management = s.Config.Management
	}

	var problems []Problem
	for _, name := range c.In {
		if _, err := net.InterfaceByName(name); err != nil {
			problems = append(problems, Problem{What: fmt.Sprintf("interface %s does not exist", name)})
		}
	}
	checks := []func() ([]Problem, error){
		func() ([]Problem, error) { return c.verifyRules(ctx) },
		c.verifyRouting,
		func() ([]Problem, error) { return SysctlProblems(c) },
		c.verifyListeners,
	}
	for _, check := range checks {
		found, err := check()
		if err != nil {
			return problems, err
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

func (c Config) verifyRules(ctx context.Context) ([]Problem, error) {
	if c.Backend == NFT {
		return c.verifyNFT(ctx)
	}
	var problems []Problem
	for _, t := range c.targets() {
		found, err := c.verifyIPTables(ctx, t)
		if err != nil {
			return problems, err
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

func (c Config) verifyRouting() ([]Problem, error) {
	if !c.routed() {
		return nil, nil
	}
	var problems []Problem
	for _, e := range c.routing(c.families()) {
		there, err := e.present()
		if err != nil {
			return problems, fmt.Errorf("%s: %w", e.name, err)
		}
		if !there {
			problems = append(problems, Problem{e.name + " is missing", e.add})
		}
	}
	return problems, nil
}

// verifyListeners returns a Problem for each family without a listener.
func (c Config) verifyListeners() ([]Problem, error) {
	if !c.CheckListener {
		return nil, nil
	}
	listeners, err := listListeners()
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, t := range c.targets() {
		serves := func(l netip.AddrPort) bool {
			if l.Port() != t.port || (t.v6 && l.Addr().Is4()) {
				return false
			}
			dual := l.Addr().Is6() && l.Addr().IsUnspecified()
			return dual || (l.Addr().IsUnspecified() && !t.v6) || (t.addr.IsValid() && l.Addr() == t.addr)
		}
		if !slices.ContainsFunc(listeners, serves) {
			problems = append(problems, Problem{
				What: fmt.Sprintf("nothing listens on %v for %s", t, t.nfproto),
				Fix:  fmt.Sprintf("tprelay run --mode %v --listen %v", c.Mode, t),
			})
		}
	}
	return problems, nil
}

// listListeners returns the local addresses of all listening TCP sockets in the
// network namespace of the calling thread.
func listListeners() ([]netip.AddrPort, error) {
	var listeners []netip.AddrPort
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, s := range sockets {
			if addr, ok := netip.AddrFromSlice(s.ID.Source); ok && s.State == netlink.TCP_LISTEN {
				listeners = append(listeners, netip.AddrPortFrom(addr.Unmap(), s.ID.SourcePort))
			}
		}
	}
	return listeners, nil
}
