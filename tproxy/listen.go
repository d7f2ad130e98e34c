// Package tproxy has the sockets of a transparent relay. It listens for connections that were meant
// for other hosts, learns where each was meant to go, and opens connections from the client's
// address. From version 1 on it keeps to semantic versioning.
//
//	address := netip.MustParseAddrPort("127.0.0.1:9091")
//	fd, err := tproxy.Listen(address, tproxy.ListenOptions{Transparent: true})
//	conn, client, err := tproxy.Accept(fd)
//	destination, err := tproxy.Destination(conn, tproxy.TPROXY, client.Addr())
//	d := tproxy.Dialer{Spoof: tproxy.SpoofFull}
//	out, level, err := d.Dial(client, destination, tproxy.LevelFull)
//
// IP_TRANSPARENT needs CAP_NET_ADMIN (or CAP_NET_RAW) in the user namespace that owns the network
// namespace. All descriptors are non-blocking and close-on-exec, and belong to the caller, who
// closes them. No function waits. All may be called from any goroutine. The zone of an address is
// an interface's index, not its name. Package rules makes the packet filter rules.
package tproxy

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// ListenOptions says how to listen. The zero value listens for ordinary connections.
type ListenOptions struct {
	// Transparent sets IP_TRANSPARENT, which TPROXY needs. Default: false.
	Transparent bool
	// ReusePort lets several sockets share the address (SO_REUSEPORT), so that the kernel
	// distributes connections among them. Default: false.
	ReusePort bool
	// Backlog is how many connections may wait to be accepted. The kernel caps it at
	// net.core.somaxconn. Default: 0, 4,096 (SOMAXCONN).
	Backlog int
	// ConnOptions of accepted connections.
	ConnOptions
}

// Listen opens a listening TCP socket. Port 0 takes a free port. The IPv6 wildcard takes IPv4
// connections, too. The error names the address and what failed, and says what to do where that is
// known.
func Listen(addr netip.AddrPort, o ListenOptions) (fd int, err error) {
	family := sock.Family(addr.Addr())
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("listen %v: socket: %w", addr, err)
	}
	if err := prepare(fd, family, addr, o); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen %v: %w", addr, err)
	}
	return fd, nil
}

// Accept takes a connection from listening socket fd. The error is a bare unix.Errno; EAGAIN means
// that no connection waits.
func Accept(fd int) (conn int, client netip.AddrPort, err error) { return sock.Accept(fd) }

func prepare(fd, family int, addr netip.AddrPort, o ListenOptions) error {
	if err := o.sock().Check(); err != nil {
		return err
	}
	options := []sock.Option{{Level: unix.SOL_SOCKET, Option: unix.SO_REUSEADDR, Value: 1, Name: "SO_REUSEADDR"}}
	if o.ReusePort {
		options = append(options, sock.Option{Level: unix.SOL_SOCKET, Option: unix.SO_REUSEPORT, Value: 1, Name: "SO_REUSEPORT"})
	}
	if family == unix.AF_INET6 {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0
		}
		options = append(options, sock.Option{Level: unix.SOL_IPV6, Option: unix.IPV6_V6ONLY, Value: only, Name: "IPV6_V6ONLY"})
	}
	for _, so := range append(options, sock.ListenerOptions(fd, family, o.Transparent, o.sock())...) {
		if err := so.Set(fd); err != nil {
			return err
		}
	}
	if err := sock.Bind(fd, family, addr); err != nil {
		return fmt.Errorf("bind: %w%s", err, bindAdvice(err))
	}
	backlog := o.Backlog
	if backlog <= 0 {
		backlog = unix.SOMAXCONN
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen: %w%s", err, bindAdvice(err))
	}
	return nil
}

func bindAdvice(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "; choose another port, or stop the program that has it (ss -ltnp shows which)"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "; no interface of this host has that address (ip addr shows them)"
	case errors.Is(err, unix.EACCES):
		return "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return ""
}
