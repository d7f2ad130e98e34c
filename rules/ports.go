package rules

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Ports is a list of TCP ports. Empty means all.
type Ports []PortRange

// ParsePorts parses "80,443,8000-8080". "", "all" and "any" mean all ports.
func ParsePorts(text string) (Ports, error) {
	text = strings.TrimSpace(text)
	if text == "" || strings.EqualFold(text, "all") || strings.EqualFold(text, "any") {
		return nil, nil
	}
	var ports Ports
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, errA := parsePort(first)
		b, errB := parsePort(last)
		if err := errors.Join(errA, errB); err != nil || a > b {
			return nil, fmt.Errorf("ports %q: %q is not a port (1 to 65535) or a range of ports such as 8000-8080", text, part)
		}
		ports = append(ports, PortRange{a, b})
	}
	return ports, ports.check()
}

func parsePort(text string) (uint16, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "+") {
		return 0, errors.New("not a number")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n == 0 {
		err = errors.New("port 0")
	}
	return uint16(n), err
}

// check returns an error for overlapping ranges, which nft refuses.
func (p Ports) check() error {
	for i, r := range p {
		if r.First == 0 || r.First > r.Last {
			return fmt.Errorf("ports %v: %v is not a range of ports", p, r)
		}
		for _, other := range p[:i] {
			if r.First <= other.Last && other.First <= r.Last {
				return fmt.Errorf("ports %v: %v and %v overlap", p, other, r)
			}
		}
	}
	return nil
}

// names reports whether port is listed by itself, not as part of a range.
func (p Ports) names(port uint16) bool {
	for _, r := range p {
		if r.First == port && r.Last == port {
			return true
		}
	}
	return false
}

// String returns p in the form that ParsePorts accepts.
func (p Ports) String() string {
	if len(p) == 0 {
		return "all"
	}
	parts := make([]string, len(p))
	for i, r := range p {
		parts[i] = r.String()
	}
	return strings.Join(parts, ",")
}

// multiport splits p into lists for iptables' multiport match, which takes at most 15 slots; a
// range needs two. If p means all ports, multiport returns one empty list.
func (p Ports) multiport() []string {
	if len(p) == 0 {
		return []string{""}
	}
	var lists []string
	var list []string
	slots := 0
	for _, r := range p {
		need, text := 1, r.String()
		if r.First != r.Last {
			need, text = 2, fmt.Sprintf("%d:%d", r.First, r.Last)
		}
		if slots+need > 15 {
			lists, list, slots = append(lists, strings.Join(list, ",")), nil, 0
		}
		list, slots = append(list, text), slots+need
	}
	return append(lists, strings.Join(list, ","))
}
