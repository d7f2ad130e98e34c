package engine

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// listen opens the listeners, on a thread on which ThreadInit was called.
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

func (e *Engine) openListeners() (err error) {
	var others lentSockets
	defer func() { others.giveBack(err == nil) }()
	for i := range e.options.Listeners {
		ln := &e.options.Listeners[i]
		if err := ln.numericZones(); err != nil {
			return err
		}
		o := tproxy.ListenOptions{
			Transparent: ln.Mode == tproxy.TPROXY,
			Backlog:     e.options.Backlog,
			ConnOptions: e.dialer.ConnOptions,
		}
		var addr netip.AddrPort
		if len(ln.Sockets)+len(ln.inherited) == 0 {
			addr, err = e.openSockets(i, *ln, o)
		} else {
			addr, err = e.shareSockets(i, *ln, o, &others)
		}
		if err != nil {
			return err
		}
		e.addrs = append(e.addrs, addr)
	}
	if err := e.checkDialer(); err != nil {
		return err
	}
	for i := range e.options.Listeners {
		ln := &e.options.Listeners[i]
		ln.Sockets = nil // the caller closes its own
		for _, fd := range ln.inherited {
			unix.Close(fd) // the loops have duplicates; on an error, TakeOver closes the originals
		}
		ln.inherited = nil
	}
	return nil
}

// checkDialer fails where every dial would fail, for want of privileges.
func (e *Engine) checkDialer() error {
	spoof := e.options.Spoof.First(tproxy.Forward) != tproxy.LevelNone
	for _, ln := range e.options.Listeners {
		spoof = spoof || e.options.Spoof.First(ln.Mode) != tproxy.LevelNone
	}
	return e.dialer.Check(spoof)
}

// numericZones replaces the names of interfaces in the addresses' zones by their indices.
func (l *Listener) numericZones() error {
	for _, a := range []*netip.AddrPort{&l.Address, &l.Upstream} {
		numeric, err := sock.NumericZone(*a)
		if err != nil {
			return fmt.Errorf("listener %v: interface %q: %w", *a, a.Addr().Zone(), err)
		}
		*a = numeric
	}
	return nil
}

// lentSockets are duplicates of the caller's listening sockets, and functions that restore the
// options of those.
type lentSockets struct {
	fds  []int
	undo []func()
}

// giveBack closes the duplicates. Unless they are used, it restores the options.
func (s *lentSockets) giveBack(used bool) {
	if !used {
		for _, f := range slices.Backward(s.undo) {
			f()
		}
	}
	for _, fd := range s.fds {
		unix.Close(fd)
	}
}

// openSockets opens a socket for each loop.
func (e *Engine) openSockets(index int, ln Listener, o tproxy.ListenOptions) (netip.AddrPort, error) {
	// With SO_REUSEPORT a second relay of the same user would silently get half of the
	// connections. So the address is first bound without it, which fails if it is in use.
	fd, err := tproxy.Listen(ln.Address, o)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := sock.LocalAddr(fd)
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

// shareSockets distributes sockets that listen already among the loops, so that every socket is
// served and every loop has one. Where there are fewer sockets than loops, several loops wait on
// the same socket, and the first one to come accepts.
func (e *Engine) shareSockets(index int, ln Listener, o tproxy.ListenOptions, lent *lentSockets) (addr netip.AddrPort, err error) {
	fds := slices.Clone(ln.inherited)
	for _, conn := range ln.Sockets {
		fd, err := duplicate(conn)
		if err != nil {
			return addr, fmt.Errorf("listen %v: %w", ln.Address, err)
		}
		fds, lent.fds = append(fds, fd), append(lent.fds, fd)
	}
	for i, fd := range fds {
		at, put, err := sock.UseListener(fd, o.Transparent, e.options.conn())
		if err != nil {
			return at, err
		}
		lent.undo = append(lent.undo, put)
		switch {
		case i == 0 && ln.Address.IsValid() && at != ln.Address:
			return at, fmt.Errorf("listen %v: the socket that was handed over is bound to %v", ln.Address, at)
		case i > 0 && at != addr:
			return at, fmt.Errorf("listen %v: a socket that was handed over with it is bound to %v", addr, at)
		}
		addr = at
	}
	for i := range max(len(fds), len(e.loops)) {
		source := fds[i%len(fds)]
		fd, err := unix.FcntlInt(uintptr(source), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return addr, fmt.Errorf("listen %v: duplicate the socket: %w", addr, err)
		}
		l := e.loops[i%len(e.loops)]
		l.listeners = append(l.listeners, listener{fd: fd, index: index, multipath: sock.Multipath(source)})
	}
	return addr, nil
}
