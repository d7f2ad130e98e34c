package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/admin"
)

// adminFlag is --admin: where to show the relay over HTTP.
type adminFlag struct{ netip.AddrPort }

// UnmarshalText reads ADDR:PORT. An address is asked for: what is shown there is not
// for everybody.
func (a *adminFlag) UnmarshalText(text []byte) (err error) {
	if a.AddrPort, err = netip.ParseAddrPort(string(text)); err != nil {
		return fmt.Errorf("%q: want ADDR:PORT with an IP address, such as 127.0.0.1:9092", text)
	}
	return nil
}

// hostFlag is a name of this host, for --admin-host.
type hostFlag string

// UnmarshalText reads a name without a port.
func (h *hostFlag) UnmarshalText(text []byte) error {
	if len(text) == 0 || strings.ContainsAny(string(text), ":/[]@ \t\r\n") {
		return fmt.Errorf("%q: want a host name without a port, such as gateway.example.com", text)
	}
	*h = hostFlag(text)
	return nil
}

// adminPatience is how long requests under way may still take at the end.
const adminPatience = 2 * time.Second

// adminEnd is what --admin opens. The nil one, without the flag, does nothing.
type adminEnd struct {
	listener *net.TCPListener
	server   *admin.Server
}

// serve shows source until stop is called; without an address it does nothing. open is
// a listening socket to use instead of opening one, if it is not 0.
func (a adminFlag) serve(source admin.Source, open int, o admin.Options) (*adminEnd, error) {
	if !a.IsValid() {
		return nil, nil
	}
	listener, err := a.listen(open)
	if err != nil {
		return nil, err
	}
	if !a.Addr().IsLoopback() {
		o.Logger.Warn("whoever reaches the admin address sees all connections; there is no password", "admin", a.String())
	}
	end := &adminEnd{listener: listener, server: admin.Serve(listener, source, o)}
	o.Logger.Info("admin", "url", "http://"+listener.Addr().String()+"/")
	return end, nil
}

// listen opens the socket, or takes the one that is open.
func (a adminFlag) listen(open int) (*net.TCPListener, error) {
	if open != 0 {
		file := os.NewFile(uintptr(open), "admin")
		defer file.Close() // FileListener has its own duplicate
		listener, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("admin %v: the socket that was handed over: %w", a, err)
		}
		tcp, ok := listener.(*net.TCPListener)
		if !ok {
			listener.Close()
			return nil, fmt.Errorf("admin %v: the socket that was handed over is %v", a, listener.Addr())
		}
		return tcp, nil
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a.AddrPort))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("admin %v: %w; choose another port, or stop the program that has it (ss -ltnp shows which)", a, unix.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("admin %v: %w", a, err)
	}
	return listener, nil
}

// file is a duplicate of the listening socket, for another process. Clients that come
// while one process has stopped and the other not begun wait in its backlog.
func (e *adminEnd) file() (*os.File, error) {
	if e == nil {
		return nil, nil
	}
	raw, err := e.listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Not by the listener's own File: when that is given to a process it makes the socket
	// blocking, here too, and Accept would keep the socket after Close, and take one
	// client more.
	var fd int
	var failed error
	err = raw.Control(func(own uintptr) {
		fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "admin"), nil
}

// stop accepts no more, and lets those who were accepted have their answer. It may be
// called more than once.
func (e *adminEnd) stop() {
	if e != nil {
		e.server.Stop(adminPatience)
	}
}
