package rules

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fullMask is the mask of a rule without an explicit mask.
const fullMask = 0xffffffff

func (f family) number() int {
	if f.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// entry is a routing rule or a route.
type entry struct {
	// name is in the form of an ip command; the state file uses it too.
	name string
	// add is the command that adds it.
	add     string
	present func() (bool, error)
	create  func() error
	destroy func() error
}

// routing returns the rule and the route of each family.
func (c Config) routing(families []family) []entry {
	var out []entry
	for _, f := range families {
		rule, route := c.ipRule(f), c.ipRoute(f)
		ruleName := fmt.Sprintf("priority %d fwmark %#x lookup %d", rulePriority, c.Mark, c.Table)
		routeName := fmt.Sprintf("local default dev lo table %d", c.Table)
		out = append(out, entry{
			name:    f.ip + " rule " + ruleName,
			add:     f.ip + " rule add " + ruleName,
			present: func() (bool, error) { return hasRule(rule) },
			create:  func() error { return netlink.RuleAdd(rule) },
			destroy: func() error { return netlink.RuleDel(rule) },
		}, entry{
			name:    f.ip + " route " + routeName,
			add:     f.ip + " route add " + routeName,
			present: func() (bool, error) { return hasRoute(f, route) },
			create:  func() error { return addRoute(route) },
			destroy: func() error { return withLoopback(route, netlink.RouteDel) },
		})
	}
	return out
}

func (c Config) ipRule(f family) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Mark, rule.Table = f.number(), rulePriority, c.Mark, c.Table
	return rule
}

func (c Config) ipRoute(f family) *netlink.Route {
	return &netlink.Route{
		Family: f.number(), Table: c.Table, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		Dst: &net.IPNet{IP: f.any.Addr().AsSlice(), Mask: net.CIDRMask(0, f.any.Addr().BitLen())},
	}
}

func hasRule(want *netlink.Rule) (bool, error) {
	list, err := netlink.RuleListFiltered(want.Family, want, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PRIORITY|netlink.RT_FILTER_MARK)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	for _, r := range list {
		if (r.Mask == nil || *r.Mask == fullMask) && r.Src == nil && r.Dst == nil && r.IifName == "" && !r.Invert {
			return true, nil
		}
	}
	return false, nil
}

func hasRoute(f family, want *netlink.Route) (bool, error) {
	list, err := netlink.RouteListFiltered(want.Family, &netlink.Route{Table: want.Table, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return false, err
	}
	for _, r := range list {
		if r.Dst == nil || r.Dst.String() == f.any.String() {
			return true, nil
		}
	}
	return false, nil
}

// addRoute adds the route. The loopback interface must be up.
func addRoute(route *netlink.Route) error {
	err := withLoopback(route, netlink.RouteAdd)
	if errors.Is(err, unix.ENETDOWN) {
		return errors.New("the interface lo is down; bring it up: ip link set lo up")
	}
	return err
}

func withLoopback(route *netlink.Route, do func(*netlink.Route) error) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find interface lo: %w", err)
	}
	route.LinkIndex = lo.Attrs().Index
	return do(route)
}

// addRouting adds the entries that are missing.
func addRouting(entries []entry) error {
	for _, e := range entries {
		there, err := e.present()
		if err == nil && !there {
			err = e.create()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.add, err)
		}
	}
	return nil
}

// removeRouting removes the entries that exist.
func removeRouting(entries []entry) error {
	var errs []error
	for _, e := range entries {
		there, err := e.present()
		if err == nil && there {
			err = e.destroy()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", e.name, err))
		}
	}
	return oneLine(errs)
}
