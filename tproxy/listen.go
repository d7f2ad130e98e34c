// Package tproxy holds the socket side of transparency: to listen for
// connections that were meant for somebody else, to learn whom they were meant
// for, and to open connections in somebody else's name.
//
//	fd, err := tproxy.Listen(netip.MustParseAddrPort("127.0.0.1:9091"), tproxy.ListenOptions{Transparent: true})
//	conn, client, err := tproxy.Accept(fd)
//	destination, err := tproxy.Destination(conn, tproxy.TPROXY, client.Addr())
//	d := tproxy.Dialer{Spoof: tproxy.SpoofFull}
//	out, step, err := d.Dial(client, destination, tproxy.StepFull)
//
// IP_TRANSPARENT needs CAP_NET_ADMIN (or CAP_NET_RAW) in the user namespace
// that owns the network namespace. All descriptors are non-blocking and
// close-on-exec. Packet filter rules are the business of package rules.
package tproxy

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// ListenOptions says how to listen. The zero value listens for ordinary
// connections.
type ListenOptions struct {
	// Transparent sets IP_TRANSPARENT, which TPROXY needs.
	Transparent bool
	// ReusePort lets several sockets share the address (SO_REUSEPORT): one for
	// each loop.
	ReusePort bool
	// Backlog of connections not yet accepted; the kernel caps it at
	// net.core.somaxconn. Default: that cap.
	Backlog int
	// ConnOptions of accepted connections.
	ConnOptions
}

// Listen opens a listening TCP socket. The IPv6 wildcard takes IPv4 connections
// too. Accepted connections inherit ConnOptions and SO_OOBINLINE (urgent data
// stays in the stream: a relay has no other place for it).
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

// UseListener makes a socket that listens already, opened by somebody else (systemd, or
// the relay before an upgrade), fit for use, and gives its address. ReusePort and
// Backlog stay as they were chosen then. Undo puts back what was there before; on error
// that has been done. Connections that a Multipath listener accepts do not inherit all
// options: give them UseConn.
func UseListener(fd int, o ListenOptions) (addr netip.AddrPort, undo func(), err error) {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || n == 0 {
		return addr, nil, fmt.Errorf("descriptor %d is not a listening socket", fd)
	}
	addr, err = sock.LocalAddr(fd)
	if err != nil || !addr.IsValid() {
		return addr, nil, fmt.Errorf("descriptor %d is not a TCP socket", fd)
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil {
		undo, err = use(fd, o.options(fd, family))
	}
	if err != nil {
		return netip.AddrPort{}, nil, fmt.Errorf("listen %v: %w", addr, err)
	}
	return addr, undo, nil
}

// Accept takes a connection from listening socket fd. The new descriptor is
// non-blocking and close-on-exec. The error is a bare unix.Errno.
func Accept(fd int) (conn int, client netip.AddrPort, err error) { return sock.Accept(fd) }

func prepare(fd, family int, addr netip.AddrPort, o ListenOptions) error {
	options := []option{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"}}
	if o.ReusePort {
		options = append(options, option{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"})
	}
	if family == unix.AF_INET6 {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0
		}
		options = append(options, option{unix.SOL_IPV6, unix.IPV6_V6ONLY, only, "IPV6_V6ONLY"})
	}
	for _, so := range append(options, o.options(fd, family)...) {
		if err := setOption(fd, so); err != nil {
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

// options are those that do not depend on when the socket was bound.
func (o ListenOptions) options(fd, family int) []option {
	list := []option{oobInline()}
	if o.Transparent {
		// It may be set already, by somebody who had the privilege.
		if n, err := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT); err != nil || n == 0 {
			list = append(list, option{unix.SOL_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT"})
			if family == unix.AF_INET6 {
				list = append(list, option{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT"})
			}
		}
	}
	return o.ConnOptions.options(fd, list)
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
