// Package epoll is the engine's poller: an edge-triggered epoll instance, an identity for every
// event, and a way to wake it from another goroutine. It is part of the engine and may change with
// any version, also within version 1.
//
//	p, err := epoll.New(1024)
//	err = p.Add(fd, epoll.Token{Key: 7, Generation: 1})
//	for _, ev := range events { ... }   // events, err := p.Wait(-1)
//
// # Edge-triggered
//
// A descriptor is added once, for everything, and what it is registered for never changes. An event
// says that something may have become possible since the last one. It is not repeated. The caller
// must remember it, and may forget it only when the kernel itself says that there is no more
// (EAGAIN, a short read). Poller.Rearm makes the kernel report the present state once more.
//
// # Identity
//
// An event carries the token that its descriptor was added with. The kernel reuses a descriptor
// number as soon as it is closed, and events of the old connection may still be in the batch in
// hand. So compare the generation with the one that the key stands for now, and drop events that do
// not match.
//
// # Leaving
//
// Closing a descriptor removes it, unless a duplicate of it is open elsewhere. Poller.Remove is for
// descriptors that have duplicates.
package epoll

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// interest is what every descriptor is added for. It includes EPOLLPRI because urgent data makes
// reads end early: without that event, a short read would not prove that the socket is empty.
const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// ending is what comes with the end of one way or of both.
const ending = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// wakeInterest lacks EPOLLOUT: an eventfd is writable from the start, and would end the first Wait.
const wakeInterest = unix.EPOLLIN | unix.EPOLLET

// Token is the identity that events carry.
type Token struct {
	Key        int32 // >= 0; negative keys are the poller's own
	Generation int32
}

const wakeKey = -1

// Event is what happened to a descriptor, as the kernel writes it.
type Event unix.EpollEvent

// Token is the token that the descriptor was added with.
func (e Event) Token() Token { return Token{Key: e.Fd, Generation: e.Pad} }

// Readable: bytes, a FIN, a connection to accept, or an error are there.
func (e Event) Readable() bool {
	return e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// Writable: the socket takes bytes, has connected, or will say why not.
func (e Event) Writable() bool { return e.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 }

// Ending: a FIN has come, or both ways are down. There may be bytes before it.
func (e Event) Ending() bool { return e.Events&ending != 0 }

// FIN: a FIN has come, and nothing else has happened to the connection.
func (e Event) FIN() bool { return e.Events&ending == unix.EPOLLRDHUP }

// Broken: the connection has failed: reset, timed out, unreachable.
func (e Event) Broken() bool { return e.Events&unix.EPOLLERR != 0 }

// Urgent: urgent data has come.
func (e Event) Urgent() bool { return e.Events&unix.EPOLLPRI != 0 }

// Hup: both ways are down.
func (e Event) Hup() bool { return e.Events&unix.EPOLLHUP != 0 }

// Wake: somebody called Wake.
func (e Event) Wake() bool { return e.Fd == wakeKey }

// Poller is an epoll instance. Wait must not be called concurrently. Wake may be called at any
// time.
type Poller struct {
	// HoldP makes waits hold on to their processor of the Go scheduler (the P of package
	// runtime) for up to 20 ms. It is for programs with more processors than pollers, and for
	// waits that are unlikely to be long: other goroutines get the processor only every 10 ms,
	// when the scheduler takes it by a signal. Default: false.
	HoldP bool

	fd, wake int
	events   []Event
	proxy    proxyEpoll
}

// New opens a poller that takes up to batch events per Wait.
func New(batch int) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	p := &Poller{fd: fd, wake: wake, events: make([]Event, batch)}
	err = p.initProxy()
	if err == nil {
		err = p.control(unix.EPOLL_CTL_ADD, wake, wakeInterest, Token{Key: wakeKey})
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Add registers fd, for all that can happen to it, until it is closed.
func (p *Poller) Add(fd int, t Token) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, interest, t)
}

func (p *Poller) control(op, fd int, events uint32, t Token) error {
	ev := unix.EpollEvent{Events: events, Fd: t.Key, Pad: t.Generation}
	if err := unix.EpollCtl(p.fd, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// Rearm makes the next Wait report the state of fd once more, and makes the kernel watch for what
// fd is not yet: a socket that was written to without being full gives no event when it has room
// again, unless it is rearmed.
func (p *Poller) Rearm(fd int, t Token) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, interest, t)
}

// Remove takes fd out. It is for descriptors that have duplicates: closing those is not enough.
func (p *Poller) Remove(fd int) {
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) // fails only when it is not there
}

// Wake makes Wait return an event for which Event.Wake is true. It may be called from any
// goroutine.
func (p *Poller) Wake() error {
	one := [8]byte{1}
	if _, err := unix.Write(p.wake, one[:]); err != nil && err != unix.EAGAIN {
		return fmt.Errorf("wake: %w", err)
	}
	return nil // EAGAIN: 2^64-2 wakes are waiting, and one more adds nothing
}

// Close closes the poller's descriptors. Those that were added stay open.
func (p *Poller) Close() error {
	unix.Close(p.wake)
	if p.proxy.file != nil {
		p.proxy.file.Close()
	}
	return unix.Close(p.fd)
}
