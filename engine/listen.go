package engine

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

// listen opens the listeners, on a thread that ThreadInit has prepared.
func (e *Engine) listen() error {
	if e.options.ThreadInit == nil {
		return e.openListeners()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := e.options.ThreadInit()
		if err == nil {
			err = e.openListeners()
		}
		done <- err
	}()
	return <-done
}

func (e *Engine) openListeners() error {
	for i, ln := range e.options.Listeners {
		o := tproxy.ListenOptions{
			Transparent: ln.Mode == tproxy.TPROXY,
			Backlog:     e.options.Backlog,
			ConnOptions: e.dialer.ConnOptions,
		}
		open := e.openSockets
		if len(ln.Sockets) > 0 {
			open = e.shareSockets
		}
		addr, err := open(i, ln, o)
		if err != nil {
			return err
		}
		e.addrs = append(e.addrs, addr)
	}
	for _, ln := range e.options.Listeners {
		for _, fd := range ln.Sockets {
			unix.Close(fd) // the loops have their own duplicates; up to here, an error left the caller its sockets
		}
	}
	return nil
}

// openSockets opens a socket for each loop.
func (e *Engine) openSockets(index int, ln Listener, o tproxy.ListenOptions) (netip.AddrPort, error) {
	// With SO_REUSEPORT a second relay of the same user would silently take half of
	// the connections. A socket without it tells.
	fd, err := tproxy.Listen(ln.Address, o)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := tproxy.LocalAddr(fd)
	unix.Close(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen %v: getsockname: %w", ln.Address, err)
	}
	o.ReusePort = true
	for _, l := range e.loops {
		if fd, err = tproxy.Listen(addr, o); err != nil {
			return netip.AddrPort{}, err
		}
		l.listeners = append(l.listeners, listener{fd: fd, index: index})
	}
	return addr, nil
}

// shareSockets deals sockets that listen already out to the loops, so that every
// socket is served and every loop has one: where they are fewer than loops, several
// loops wait on the same, and who comes first accepts.
func (e *Engine) shareSockets(index int, ln Listener, o tproxy.ListenOptions) (addr netip.AddrPort, err error) {
	for i, fd := range ln.Sockets {
		at, err := tproxy.UseListener(fd, o)
		switch {
		case err != nil:
			return at, err
		case i == 0 && ln.Address.IsValid() && at != ln.Address:
			return at, fmt.Errorf("listen %v: the socket that was handed over is bound to %v", ln.Address, at)
		case i > 0 && at != addr:
			return at, fmt.Errorf("listen %v: a socket that was handed over with it is bound to %v", addr, at)
		}
		addr = at
	}
	for i := range max(len(ln.Sockets), len(e.loops)) {
		fd, err := unix.FcntlInt(uintptr(ln.Sockets[i%len(ln.Sockets)]), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return addr, fmt.Errorf("listen %v: duplicate the socket: %w", addr, err)
		}
		l := e.loops[i%len(e.loops)]
		l.listeners = append(l.listeners, listener{fd: fd, index: index})
	}
	return addr, nil
}
