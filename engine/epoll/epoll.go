// Package epoll is the poller: a thin, edge-triggered epoll instance with an
// identity for every event and a way to wake it from outside.
//
//	p, err := epoll.New(1024)
//	err = p.Add(fd, epoll.Token{Key: 7, Generation: 1})
//	for _, ev := range events { ... }   // events, err := p.Wait(-1)
//
// # Edge-triggered
//
// A descriptor is added once, for everything, and never changed. An event says
// that something may have become possible since the last one; it is not repeated.
// Who gets it must remember it, and may only forget it when the kernel itself
// says that there is no more (EAGAIN, a short read).
//
// # Identity
//
// An event brings back the token that its descriptor was added with. A
// descriptor number is reused by the kernel the moment it is closed, and events of
// the old connection may still be in the batch in hand: compare the generation
// with the one that the key stands for now, and drop what does not match.
//
// # Leaving
//
// Closing a descriptor removes it, provided that no duplicate of it is open
// elsewhere; for those there is Remove.
package epoll

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interest is what every descriptor is added for. EPOLLPRI is among it because
// urgent data makes reads end early: without knowing of it, a short read could
// not be taken for an empty socket.
const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// wakeInterest is without EPOLLOUT: an eventfd is writable from the start, and
// would wake the first Wait unasked.
const wakeInterest = unix.EPOLLIN | unix.EPOLLET

// Token is the identity that events carry.
type Token struct {
	Key        int32 // >= 0; negative keys are the poller's own
	Generation int32
}

const wakeKey = -1

// How long a wait may be, in milliseconds, of which the Go scheduler is not told: any wait,
// and one after events with Keep.
const shortWait, keepWait = 2, 20

// Event is what happened to a descriptor, as the kernel writes it.
type Event unix.EpollEvent

// Token is what the descriptor was added with.
func (e Event) Token() Token { return Token{Key: e.Fd, Generation: e.Pad} }

// Readable: bytes, a FIN, a connection to accept, or an error are there.
func (e Event) Readable() bool {
	return e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// Writable: the socket takes bytes, has connected, or will say why not.
func (e Event) Writable() bool { return e.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 }

// Ending: a FIN has come, or both ways are down. There may be bytes before it.
func (e Event) Ending() bool { return e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 }

// FIN: a FIN has come, and nothing else has happened to the connection.
func (e Event) FIN() bool {
	const end = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	return e.Events&end == unix.EPOLLRDHUP
}

// Broken: the connection has failed: reset, timed out, unreachable.
func (e Event) Broken() bool { return e.Events&unix.EPOLLERR != 0 }

// Urgent: urgent data has come.
func (e Event) Urgent() bool { return e.Events&unix.EPOLLPRI != 0 }

// Hup: both ways are down.
func (e Event) Hup() bool { return e.Events&unix.EPOLLHUP != 0 }

// Wake: somebody called Wake.
func (e Event) Wake() bool { return e.Fd == wakeKey }

// Poller is an epoll instance. Wait must not be called concurrently; Wake may,
// any time.
type Poller struct {
	// Keep has a wait that follows upon events keep its processor of the Go scheduler (the P of
	// package runtime) for up to 20 ms. Otherwise it is gone after some 20 µs, events find
	// the loop in a queue for another one, and the scheduler's monitor looks around every 20 µs
	// meanwhile. It is for programs that have a processor more than pollers, as other
	// goroutines get that of a poller only every 10 ms while events come. Default: false.
	Keep bool

	fd, wake int
	events   []Event
	busy     bool // the last wait brought something
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
	if err := p.control(unix.EPOLL_CTL_ADD, wake, wakeInterest, Token{Key: wakeKey}); err != nil {
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

// Rearm has the state of fd told of again with the next Wait, and the kernel look out for
// what it is not: a socket that was written to without being full gives no event when it
// has room again, until it was asked.
func (p *Poller) Rearm(fd int, t Token) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, interest, t)
}

// Remove takes fd out, for descriptors that have duplicates: closing these is
// not enough.
func (p *Poller) Remove(fd int) {
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) // fails only when it is not there
}

// Wait returns the events that are there, waiting up to timeout milliseconds for
// the first (0: not at all, -1: for ever). The slice is good until the next Wait.
// No events and no error: the time is over, or a signal came.
//
// It first looks without blocking: on a busy loop something is always there, and
// a call that cannot block need not tell the Go scheduler. Nor is it told of a short
// wait, in which it would only take the processor away and look for somebody to give
// it to: other goroutines get it some milliseconds later at worst, as from any
// goroutine that computes, and the collector interrupts the wait with a signal.
func (p *Poller) Wait(timeout int) ([]Event, error) {
	n, errno := p.look(0)
	if n == 0 && errno == 0 && timeout != 0 {
		keep := p.Keep && p.busy // it will hardly be long
		switch {
		case timeout > 0 && (timeout <= shortWait || keep && timeout <= keepWait):
			n, errno = p.look(timeout)
		case keep:
			if n, errno = p.look(keepWait); n == 0 && errno == 0 {
				n, errno = p.block(max(timeout-keepWait, -1))
			}
		default:
			n, errno = p.block(timeout)
		}
	}
	p.busy = n > 0
	switch errno {
	case 0:
		return p.events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("epoll_wait: %w", errno)
}

// look waits without telling the Go scheduler.
func (p *Poller) look(timeout int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(timeout), 0, 0)
	return int(n), errno
}

// block waits, and others have the processor.
func (p *Poller) block(timeout int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(timeout), 0, 0)
	return int(n), errno
}

// Wake makes Wait return an event for which Event.Wake is true. Safe from any
// goroutine.
func (p *Poller) Wake() error {
	one := [8]byte{1}
	if _, err := unix.Write(p.wake, one[:]); err != nil && err != unix.EAGAIN {
		return fmt.Errorf("wake: %w", err)
	}
	return nil // EAGAIN: 2^64-2 wakes wait to be seen, one more adds nothing
}

// Close gives the descriptors back.
func (p *Poller) Close() error {
	unix.Close(p.wake)
	return unix.Close(p.fd)
}
