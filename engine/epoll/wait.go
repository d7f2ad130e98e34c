package epoll

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How long a wait may hold its processor, in milliseconds: any wait, and one with HoldP.
const shortWait, heldWait = 2, 20

// Wait returns the events that are there, and waits up to timeout milliseconds for the first one
// (0: not at all, -1: for ever). The slice is valid until the next Wait. Wait returns no events and
// no error when the time is over, and when it was cut short, by a signal for example.
//
// Wait first looks without blocking: on a busy loop there is always something. When there is
// nothing, it waits in one of two ways. A call that the Go scheduler is not told of holds the
// processor, like a goroutine that computes. Other goroutines get the processor some milliseconds
// later at worst, and the garbage collector and the scheduler's monitor, which wants the processor
// back after 10 ms, end the wait by a signal. This is the cheapest way if the wait is short. For
// longer waits the goroutine is parked in Go's own poller, like one that waits for a connection.
// (The third way, a blocking call that the scheduler is told of, is the most expensive: it loses
// its processor only after the monitor has looked for it for some time, and queues for it
// afterwards.)
func (p *Poller) Wait(timeout int) ([]Event, error) {
	n, err := p.look(0)
	if n == 0 && err == nil && timeout != 0 {
		switch {
		case timeout > 0 && timeout <= shortWait:
			n, err = p.look(timeout)
		case p.HoldP:
			p.disarm()
			held := heldWait
			if timeout > 0 {
				held = min(timeout, heldWait)
			}
			if n, err = p.look(held); n == 0 && err == nil && held != timeout {
				n, err = p.park(max(timeout-held, -1))
			}
		default:
			n, err = p.park(timeout)
		}
	}
	switch err {
	case nil:
		return p.events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("epoll_wait: %w", err)
}

// look waits on the processor.
func (p *Poller) look(timeout int) (n int, err error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// proxyEpoll is a third epoll instance, between ours and the one of Go's poller. If ours were
// registered with Go's poller itself, each of its events would wake the thread that waits there,
// also while the loop is at work. The proxy has our instance as its only descriptor. Once armed,
// it reports one event (EPOLLONESHOT). While waits hold their processor, our instance is not
// registered with it at all.
type proxyEpoll struct {
	fd       int
	file     *os.File           // fd as Go's poller has it
	conn     syscall.RawConn    // the same
	ready    func(uintptr) bool // reports whether park may stop waiting
	deadline bool               // file has one
	armed    bool               // our instance is registered with it
}

// initProxy opens the proxy and registers it with Go's poller.
func (p *Poller) initProxy() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // says that it may be waited for
		unix.Close(fd)
		return fmt.Errorf("epoll instance: %w", err)
	}
	b := &p.proxy
	b.fd, b.file = fd, os.NewFile(uintptr(fd), "epoll")
	if b.conn, err = b.file.SyscallConn(); err == nil {
		err = b.file.SetReadDeadline(time.Time{}) // fails where Go's poller does not have it
	}
	if err != nil {
		return fmt.Errorf("epoll instance in Go's poller: %w", err)
	}
	var event [1]unix.EpollEvent
	b.ready = func(uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.fd), uintptr(unsafe.Pointer(&event[0])), 1, 0, 0, 0)
		return n != 0 || errno != 0
	}
	return nil
}

// arm makes the proxy ready at the next event, or at once if there is one.
func (p *Poller) arm() error {
	op := unix.EPOLL_CTL_ADD
	if p.proxy.armed {
		op = unix.EPOLL_CTL_MOD
	}
	err := unix.EpollCtl(p.proxy.fd, op, p.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT})
	p.proxy.armed = err == nil
	return err
}

// disarm spares events the way through the proxy.
func (p *Poller) disarm() {
	if p.proxy.armed {
		_ = unix.EpollCtl(p.proxy.fd, unix.EPOLL_CTL_DEL, p.fd, nil)
		p.proxy.armed = false
	}
}

// park waits in Go's poller.
func (p *Poller) park(timeout int) (n int, err error) {
	b := &p.proxy
	var until time.Time
	if timeout >= 0 {
		until = time.Now().Add(time.Duration(timeout) * time.Millisecond)
	}
	if timeout >= 0 || b.deadline {
		if err := b.file.SetReadDeadline(until); err != nil {
			return 0, err
		}
		b.deadline = timeout >= 0
	}
	if p.arm() != nil { // no memory for it
		return p.look(shortWait)
	}
	if err := b.conn.Read(b.ready); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, err
	}
	return p.look(0)
}
