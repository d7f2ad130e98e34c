package rules

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is missing or wrong, and the command that mends it.
type Problem struct{ What, Mend string }

func (p Problem) String() string {
	if p.Mend == "" {
		return p.What
	}
	return p.What + "; mend: " + p.Mend
}

// Verify compares this thread's network namespace with what c asks for. It
// changes nothing. An error means that it could not look.
func Verify(ctx context.Context, c Config) ([]Problem, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := privileged(); err != nil {
		return nil, err
	}
	// Rules know the connection of the operator who applied them, not ours.
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

// verifyListeners reports every family for which nothing listens.
func (c Config) verifyListeners() ([]Problem, error) {
	if !c.CheckListener {
		return nil, nil
	}
	var listeners []netip.AddrPort
	for _, name := range []string{"tcp", "tcp6"} {
		// Not /proc/net, which is the namespace of the process's first thread.
		text, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil && name == "tcp" {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		listeners = append(listeners, parseListeners(string(text))...)
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
				Mend: fmt.Sprintf("tprelay run --mode %v --listen %v", c.Mode, t),
			})
		}
	}
	return problems, nil
}

// parseListeners reads the local addresses of listening sockets (state 0A) from
// /proc/net/tcp or tcp6, where addresses are words in the host's byte order.
func parseListeners(text string) []netip.AddrPort {
	var out []netip.AddrPort
	for l := range strings.Lines(text) {
		fields := strings.Fields(l)
		if len(fields) < 4 || fields[3] != "0A" {
			continue
		}
		host, port, _ := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(host)
		n, errPort := strconv.ParseUint(port, 16, 16)
		if err != nil || errPort != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i < len(raw); i += 4 { // amd64 and arm64 are little-endian
			slices.Reverse(raw[i : i+4])
		}
		if addr, ok := netip.AddrFromSlice(raw); ok {
			out = append(out, netip.AddrPortFrom(addr.Unmap(), uint16(n)))
		}
	}
	return out
}
