package engine

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// open begins a pair with an accepted connection.
func (l *loop) open(fd int, client netip.AddrPort, index int) {
	ln := &l.engine.options.Listeners[index]
	p := l.begin(fd, client)
	p.listener = int16(index)
	if !l.admitSource(p) {
		l.end(p, ReasonSourceLimit, nil)
		return
	}
	destination := ln.Upstream
	if ln.Mode != tproxy.Forward {
		var err error
		if destination, err = tproxy.Destination(fd, ln.Mode, client.Addr()); err != nil {
			l.end(p, ReasonNoDestination, err)
			return
		}
	}
	p.setDestination(destination)
	p.level = l.engine.options.Spoof.First(ln.Mode)
	l.route(p, destination)
}

// generationShift separates the IDs that engines give to pairs when one takes over from the other:
// each has 2⁴⁰. IDs stay exact in a float64 for the first 8,192 engines.
const generationShift = 40

// begin makes a pair of an incoming flow.
func (l *loop) begin(fd int, client netip.AddrPort) *pair {
	p := l.pairs.take()
	p.fd[incoming] = int32(fd)
	p.id = l.engine.generation<<generationShift + l.opened*uint64(l.engine.options.Loops) + uint64(l.index) + 1
	l.opened++
	p.last = l.tick
	p.began = int64(l.now.Sub(l.start))
	p.client, p.clientScope, p.clientPort = client.Addr().As16(), sock.Scope(client.Addr()), client.Port()
	return p
}

func (p *pair) setDestination(a netip.AddrPort) {
	p.destination, p.destScope, p.destPort = a.Addr().As16(), sock.Scope(a.Addr()), a.Port()
}

// errPortZero refuses port 0, which TCP does not have: Linux would send a SYN to it, and some host
// might answer.
var errPortZero = errors.New("destination port 0")

// route checks the destination, asks the interceptor, and dials.
func (l *loop) route(p *pair, destination netip.AddrPort) {
	if destination.Port() == 0 {
		l.end(p, ReasonDialError, errPortZero)
		return
	}
	if reason, ok := l.forbidden(destination, l.engine.mode(p) != tproxy.Forward); ok {
		l.end(p, reason, nil)
		return
	}
	if l.engine.options.Interceptor != nil {
		decision, err := l.callOpen(intercept.Pair{
			ID: p.id, Client: p.clientAddr(), Destination: destination, Listener: l.engine.listenAddr(p), Mode: l.engine.mode(p),
		})
		if err != nil {
			l.end(p, ReasonPanicked, err)
			return
		}
		l.attach(p, decision)
		if decision.Refuse {
			l.end(p, ReasonRejected, nil)
			return
		}
		if x := l.extra(p); x != nil && x.connected.IsValid() {
			if x.connected.Port() == 0 {
				l.end(p, ReasonDialError, errPortZero)
				return
			}
			if x.connected, err = sock.NumericZone(x.connected); err != nil {
				l.dialFailed(p, err)
				return
			}
			destination = x.connected
			if reason, ok := l.forbidden(destination, false); ok {
				l.end(p, reason, nil)
				return
			}
		}
	}
	if err := l.poller.Add(int(p.fd[incoming]), p.token(incoming)); err != nil {
		l.end(p, ReasonDialError, err)
		return
	}
	l.dial(p)
}

func (p *pair) token(s side) epoll.Token {
	return epoll.Token{Key: p.slot<<1 | int32(s), Generation: p.generation}
}

// dial opens the outgoing flow.
func (l *loop) dial(p *pair) {
	dialer := &l.engine.dialer
	if l.mayHoldACK(p) {
		dialer = &l.engine.dialerToSend
		p.dir[upstream].Set(pump.ACKHeld)
	}
	fd, level, err := dialer.Dial(p.clientAddr(), l.target(p), p.level)
	if err == unix.EMFILE || err == unix.ENFILE || err == unix.ENOBUFS || err == unix.ENOMEM {
		l.waitForFD(p)
		return
	}
	if err != nil {
		l.dialFailed(p, err)
		return
	}
	l.stopWaitingForFD(p)
	p.fd[outgoing], p.level, p.state = int32(fd), level, stateConnecting
	if err := l.poller.Add(fd, p.token(outgoing)); err != nil {
		l.dialFailed(p, err)
		return
	}
	l.armConnect(p)
}

// armConnect arms the connect timeout, which counts from the beginning of the pair.
func (l *loop) armConnect(p *pair) {
	if t := l.engine.options.ConnectTimeout; t > 0 {
		l.wheel.arm(&l.pairs, p, p.last+ticks(t))
	}
}

// connectExpired reports whether the time to establish the pair's outgoing flow is over.
func (l *loop) connectExpired(p *pair) bool {
	t := l.engine.options.ConnectTimeout
	return t > 0 && int32(l.tick-p.last-ticks(t)) >= 0
}

// waitForFD lets a pair wait for which no descriptor is left: dialing is tried again each tick.
// Connections behind it stay in the backlog.
func (l *loop) waitForFD(p *pair) {
	if p.state != stateWaiting {
		p.state = stateWaiting
		l.fdWaiters++
	}
	l.holdListeners()
	l.wheel.arm(&l.pairs, p, l.tick+1)
}

// stopWaitingForFD is called when a pair gets its descriptor, or ends.
func (l *loop) stopWaitingForFD(p *pair) {
	if p.state == stateWaiting {
		l.fdWaiters--
	}
}

// target is where the outgoing flow goes: the original destination, unless an
// interceptor chose another.
func (l *loop) target(p *pair) netip.AddrPort {
	if x := l.extra(p); x != nil && x.connected.IsValid() {
		return x.connected
	}
	return p.destinationAddr()
}

// connected handles the first event of the outgoing flow.
func (l *loop) connected(p *pair, ev epoll.Event) {
	if !ev.Writable() {
		return
	}
	var reset error
	if ev.Broken() || ev.Hup() {
		switch err := sock.Error(int(p.fd[outgoing])); err {
		case nil:
		case unix.ECONNRESET, unix.EPIPE:
			// The connection was established, and reset before this event: a refused SYN gives
			// ECONNREFUSED. The server may have sent bytes before the reset.
			reset = err
		default:
			l.dialFailed(p, err)
			return
		}
	}
	p.state, p.opened = stateOpen, true
	p.last = l.tick
	l.count.opened++
	l.count.levels[p.level]++
	if f := l.engine.options.Observer.PairOpened; f != nil {
		if err := l.callPairOpened(f, l.info(p)); err != nil {
			l.end(p, ReasonPanicked, err)
			return
		}
	}
	if reset != nil && !l.failed(p, outgoing, reset) {
		return
	}
	l.rearm(p)
	l.queue(p)
}

// dialFailed resets the client, which would take a clean end for an empty answer.
func (l *loop) dialFailed(p *pair, err error) {
	if errno, ok := err.(unix.Errno); ok && int(errno) < errnos {
		l.mu.Lock()
		l.dialErrors[errno]++
		l.mu.Unlock()
	}
	l.end(p, ReasonDialError, err)
}
