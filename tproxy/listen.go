// Package tproxy holds the socket side of transparency: to listen for
// connections that were meant for somebody else, to learn whom they were meant
// for, and to open connections in somebody else's name.
//
//	fd, err := tproxy.Listen(netip.MustParseAddrPort("127.0.0.1:9091"), tproxy.ListenOptions{Transparent: true})
//	conn, client, err := tproxy.Accept(fd)
//	destination, err := tproxy.Destination(conn, tproxy.TPROXY, client.Addr())
//	d := tproxy.Dialer{Spoof: tproxy.SpoofFull}
//	out, step, err := d.Dial(client, destination, tproxy.LevelFull)
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

// Accept takes a connection from listening socket fd. The new descriptor is
// non-blocking and close-on-exec. The error is a bare unix.Errno.
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
