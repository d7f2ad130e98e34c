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

// adminFlag is --admin: the address of the HTTP server for operators.
type adminFlag struct{ netip.AddrPort }

// UnmarshalText parses ADDR:PORT. The address is required: the server has no password, so no
// one should open it on all addresses by accident.
func (a *adminFlag) UnmarshalText(text []byte) (err error) {
	if a.AddrPort, err = netip.ParseAddrPort(string(text)); err != nil {
		return fmt.Errorf("%q: want ADDR:PORT with an IP address, such as 127.0.0.1:9092", text)
	}
	return nil
}

// hostFlag is a name of this host, for --admin-host.
type hostFlag string

// UnmarshalText parses a host name without a port.
func (h *hostFlag) UnmarshalText(text []byte) error {
	if len(text) == 0 || strings.ContainsAny(string(text), ":/[]@ \t\r\n") {
		return fmt.Errorf("%q: want a host name without a port, such as gateway.example.com", text)
	}
	*h = hostFlag(text)
	return nil
}

// adminPatience is how long stop waits for requests in progress.
const adminPatience = 2 * time.Second

// adminEnd is the server of --admin. A nil adminEnd, without the flag, does nothing.
type adminEnd struct {
	listener *net.TCPListener
	server   *admin.Server
}

// serve serves source until stop is called. Without an address it returns nil. open, if not
// 0, is a listening socket to use instead of opening one.
func (a adminFlag) serve(source admin.Source, open int, o admin.Options) (*adminEnd, error) {
	if !a.IsValid() {
		return nil, nil
	}
	listener, err := a.listen(open)
	if err != nil {
		return nil, err
	}
	if !a.Addr().IsLoopback() {
		o.Logger.Warn("the admin address has no password; anyone who can reach it sees all connections", "admin", a.String())
	}
	end := &adminEnd{listener: listener, server: admin.Serve(listener, source, o)}
	o.Logger.Info("admin", "url", "http://"+listener.Addr().String()+"/")
	return end, nil
}

// listen opens the listening socket, or uses open if it is not 0.
func (a adminFlag) listen(open int) (*net.TCPListener, error) {
	if open != 0 {
		file := os.NewFile(uintptr(open), "admin")
		defer file.Close() // FileListener has its own duplicate
		listener, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("admin %v: inherited socket: %w", a, err)
		}
		tcp, ok := listener.(*net.TCPListener)
		if !ok {
			listener.Close()
			return nil, fmt.Errorf("admin %v: the inherited socket listens on %v", a, listener.Addr())
		}
		return tcp, nil
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a.AddrPort))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("admin %v: %w; choose another port, or stop the program that uses it (ss -ltnp shows it)", a, unix.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("admin %v: %w", a, err)
	}
	return listener, nil
}

// file returns a duplicate of the listening socket for another process. Clients that connect
// after one process has stopped and before the other accepts wait in the backlog.
func (e *adminEnd) file() (*os.File, error) {
	if e == nil {
		return nil, nil
	}
	raw, err := e.listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Not TCPListener.File: passing that file to a process makes the socket blocking, in
	// this process too. Accept would then keep the socket after Close and accept one more
	// client.
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

// stop closes the listener and waits for requests in progress, no longer than adminPatience.
// It may be called more than once.
func (e *adminEnd) stop() {
	if e != nil {
		e.server.Stop(adminPatience)
	}
}
