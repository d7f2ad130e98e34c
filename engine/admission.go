package engine

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Who may open a pair, and to where.

// sources counts the pairs of each client, for all loops together. It is used only
// with MaxPairsPerSource.
type sources struct {
	mu    sync.Mutex
	pairs map[netip.Prefix]int
}

// sourceOf is what counts as one client.
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

// admitSource counts p with its client. False: the client has as many as it may.
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

// leaveSource is called when p ends.
func (l *loop) leaveSource(p *pair) {
	if p.counted {
		p.counted = false
		l.engine.sources.leave(p.clientAddr().Addr())
	}
}

// forbidden is the reason for which no pair may go to addr, if there is one. Diverted:
// a client named it, and not the embedder or an interceptor.
func (l *loop) forbidden(addr netip.AddrPort, diverted bool) (Reason, bool) {
	o := &l.engine.options
	if l.isSelf(addr) {
		return ReasonLoop, true
	}
	for _, prefix := range o.Deny {
		if prefix.Contains(addr.Addr()) {
			return ReasonDenied, true
		}
	}
	if diverted && !o.AllowLocal && (addr.Addr().IsUnspecified() || l.isLocal(addr.Addr())) {
		return ReasonDenied, true
	}
	return ReasonNone, false
}

// self knows the addresses under which the engine itself can be reached.
type self struct {
	locals map[netip.Addr]bool
	asked  time.Time
}

// isSelf: a connection to addr would come back to one of our listeners.
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

// askLocals lists this host's addresses. It takes a descriptor: when there is none, what
// was known stays.
func (l *loop) askLocals() {
	addrs, err := net.InterfaceAddrs()
	for range 3 { // it does not try again when a signal interrupts it
		if !errors.Is(err, unix.EINTR) {
			break
		}
		addrs, err = net.InterfaceAddrs()
	}
	if err != nil {
		l.engine.options.Logger.Warn("cannot list this host's addresses; new ones may not be recognised as its own", "err", err)
		return
	}
	l.self.asked = l.now
	l.self.locals = map[netip.Addr]bool{}
	for _, a := range addrs {
		if ipnet, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(ipnet.IP); ok {
				l.self.locals[ip.Unmap()] = true
			}
		}
	}
}

// isLocal: addr is this host's own. What those are is asked for at most once a second.
func (l *loop) isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	if l.now.Sub(l.self.asked) >= time.Second {
		l.askLocals()
	}
	return l.self.locals[addr]
}
