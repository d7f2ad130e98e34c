package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// Admission decides which clients may open a pair, and to which destinations.

// sources counts the pairs of each client, for all loops together. It is only used with
// MaxPairsPerSource.
type sources struct {
	mu    sync.Mutex
	pairs map[netip.Prefix]int
}

// sourceOf is the network that counts as one client: an IPv4 address, or a /64 of IPv6.
func sourceOf(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.WithZone("").Prefix(bits) // fails for bits beyond the address only
	return prefix
}

// admit counts a pair in, if its client has fewer than most.
func (s *sources) admit(client netip.Addr, most int) bool {
	source := sourceOf(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairs[source] >= most {
		return false
	}
	if s.pairs == nil {
		s.pairs = map[netip.Prefix]int{}
	}
	s.pairs[source]++
	return true
}

func (s *sources) leave(client netip.Addr) {
	source := sourceOf(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairs[source]--; s.pairs[source] == 0 {
		delete(s.pairs, source)
	}
}

// admitSource counts p for its client. It is false if the client already has MaxPairsPerSource.
func (l *loop) admitSource(p *pair) bool {
	most := l.engine.options.MaxPairsPerSource
	p.counted = most > 0 && l.engine.sources.admit(p.clientAddr().Addr(), most)
	return p.counted || most == 0
}

// countSource counts a pair that another engine admitted.
func (l *loop) countSource(p *pair) {
	if l.engine.options.MaxPairsPerSource > 0 && p.listener >= 0 {
		p.counted = l.engine.sources.admit(p.clientAddr().Addr(), math.MaxInt)
	}
}

// leaveSource takes back what admitSource has counted, when p ends.
func (l *loop) leaveSource(p *pair) {
	if p.counted {
		p.counted = false
		l.engine.sources.leave(p.clientAddr().Addr())
	}
}

// forbidden is the reason why no pair may go to addr, if there is one. Diverted says that the
// address is the client's choice, and not that of the embedder or an interceptor.
func (l *loop) forbidden(addr netip.AddrPort, diverted bool) (Reason, bool) {
	o := &l.engine.options
	if l.isSelf(addr) {
		return ReasonLoop, true
	}
	for _, prefix := range o.Deny {
		if prefix.Contains(addr.Addr().WithZone("")) { // no prefix contains an address with a zone
			return ReasonDenied, true
		}
	}
	if diverted && !o.AllowLocal && (addr.Addr().IsUnspecified() || l.isLocal(addr.Addr())) {
		return ReasonDenied, true
	}
	return ReasonNone, false
}

// self has this host's addresses, under which the engine itself can be reached.
type self struct {
	locals map[netip.Addr]bool
	asked  time.Time
}

// isSelf reports whether a connection to addr would come back to one of the engine's listeners.
func (l *loop) isSelf(addr netip.AddrPort) bool {
	for _, own := range l.engine.addrs {
		if own.Port() != addr.Port() {
			continue
		}
		if own.Addr() == addr.Addr() || own.Addr().IsUnspecified() && (addr.Addr().IsUnspecified() || l.isLocal(addr.Addr())) {
			return true
		}
	}
	return false
}

// askLocals lists this host's addresses. That needs a descriptor: where there is none, the previous
// list stays.
func (l *loop) askLocals() {
	locals, err := localAddrs()
	for range 3 { // syscall.NetlinkRIB does not try again when a signal interrupts it
		if !errors.Is(err, unix.EINTR) {
			break
		}
		locals, err = localAddrs()
	}
	if err != nil {
		l.engine.options.Logger.Warn("cannot list this host's addresses; new ones may not be recognised as its own", "err", err)
		return
	}
	l.self.asked, l.self.locals = l.now, locals
}

// localAddrs lists the addresses of this host. Link-local ones have their zone, which
// net.InterfaceAddrs leaves out: another host may have the same address on another link.
func localAddrs() (map[netip.Addr]bool, error) {
	table, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("RTM_GETADDR: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return nil, fmt.Errorf("RTM_GETADDR: %w", err)
	}
	locals := map[netip.Addr]bool{}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("RTM_GETADDR: %w", err)
		}
		var local, other netip.Addr
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(a.Value)
			case unix.IFA_ADDRESS: // of a point-to-point link it is the other end's
				other, _ = netip.AddrFromSlice(a.Value)
			}
		}
		if !local.IsValid() {
			local = other
		}
		locals[local] = true // also for destinations without a zone
		if local.IsLinkLocalUnicast() && local.Is6() {
			local = sock.WithScope(local, binary.NativeEndian.Uint32(m.Data[4:])) // ifa_index
		}
		locals[local] = true
	}
	return locals, nil
}

// isLocal reports whether addr is this host's own. It asks the kernel at most once a second.
func (l *loop) isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	if l.now.Sub(l.self.asked) >= time.Second {
		l.askLocals()
	}
	return l.self.locals[addr]
}
