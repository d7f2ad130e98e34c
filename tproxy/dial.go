package tproxy

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// Dialer opens outgoing connections, from the client's address or from this host's. The zero value
// never falls back from the client's address to this host's. A Dialer is safe for concurrent use as
// long as no field changes.
type Dialer struct {
	// Spoof says which levels may follow when the address of a level is taken. Default: only ip,
	// after full.
	Spoof Spoof
	// Mark is set on the sockets (SO_MARK), for packet filter rules and routing. It needs
	// CAP_NET_ADMIN or, since Linux 5.17, CAP_NET_RAW. Default: 0, none.
	Mark uint32
	// Control is called with each new socket before anything is set on it, like that of net.Dialer.
	// When it fails, the socket is closed, and Dial returns the error as it is. Default: nil.
	Control func(fd int) error
	// ConnOptions of the connections.
	ConnOptions
}

// Dial starts to connect to destination. It begins at the given level (see [Spoof.First]) and goes
// on to the next as long as the policy has one, when the address of a level is taken, or when its
// port is below 1024 and the process lacks CAP_NET_BIND_SERVICE. Client is not used at LevelNone.
//
// Dial does not wait: the connection is usually still being made when it returns. Wait until fd is
// writable, then ask SO_ERROR. The error is a bare unix.Errno, EAFNOSUPPORT if client and
// destination are not of one family. At is the level of the connection, or the one that failed
// last.
func (d *Dialer) Dial(client, destination netip.AddrPort, level SpoofLevel) (fd int, at SpoofLevel, err error) {
	for {
		fd, err = d.dial(client, destination, level)
		if err != unix.EADDRINUSE && err != unix.EADDRNOTAVAIL && (err != unix.EACCES || level != LevelFull) {
			return fd, level, err
		}
		next, ok := d.Spoof.next(level)
		if !ok {
			return -1, level, err
		}
		level = next
	}
}

// Check tries on a socket of its own what Dial will need, and the error says what to do where that
// is not permitted. Spoof says that some dials begin above LevelNone. CAP_NET_RAW will do instead
// of CAP_NET_ADMIN, for Mark since Linux 5.17.
func (d *Dialer) Check(spoof bool) error {
	if err := d.sock().Check(); err != nil {
		return err
	}
	family, unassigned := unix.AF_INET, netip.AddrFrom4([4]byte{192, 0, 2, 1}) // TEST-NET-1
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == unix.EAFNOSUPPORT {
		family, unassigned = unix.AF_INET6, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}) // 2001:db8::1, for documentation
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := d.sock().Apply(fd); err != nil {
		return err
	}
	if d.Mark != 0 {
		mark := sock.Option{Level: unix.SOL_SOCKET, Option: unix.SO_MARK, Value: int(d.Mark), Name: "SO_MARK"}
		if err := mark.Set(fd); err != nil {
			return fmt.Errorf("mark outgoing connections: %w, or do without a mark", err)
		}
	}
	if !spoof {
		return nil
	}
	switch err := bindAs(fd, family, netip.AddrPortFrom(unassigned, 0), LevelFull); err {
	case nil:
		return nil
	case unix.EPERM:
		return fmt.Errorf("connect from the clients' addresses: IP_TRANSPARENT: %w; run as root or grant CAP_NET_ADMIN, or choose spoof none", err)
	default:
		return fmt.Errorf("connect from the clients' addresses: bind to %v: %w", unassigned, err)
	}
}

func (d *Dialer) dial(client, destination netip.AddrPort, level SpoofLevel) (int, error) {
	family := sock.Family(destination.Addr())
	if level != LevelNone && sock.Family(client.Addr()) != family {
		return -1, unix.EAFNOSUPPORT // an IPv4 packet cannot come from an IPv6 address
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if d.Control != nil {
		err = d.Control(fd)
	}
	if err == nil {
		err = d.prepare(fd)
	}
	if err == nil && level != LevelNone {
		err = bindAs(fd, family, client, level)
	}
	if err == nil {
		err = sock.Connect(fd, family, destination)
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (d *Dialer) prepare(fd int) error {
	if err := d.sock().Apply(fd); err != nil {
		return errors.Unwrap(err)
	}
	// Before the connection exists: a read before the first event of urgent data would lose the
	// byte.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		return err
	}
	if d.Mark != 0 {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(d.Mark))
	}
	return nil
}

// bindAs binds fd to the client's address, before it connects.
func bindAs(fd, family int, client netip.AddrPort, level SpoofLevel) error {
	protocol, name := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		protocol, name = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, protocol, name, 1); err != nil {
		return err
	}
	if level == LevelIP {
		// The kernel then chooses the port in connect, where the whole 4-tuple must be free, and
		// not in bind, where the port must be.
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		return sock.Bind(fd, family, netip.AddrPortFrom(client.Addr(), 0))
	}
	// Without SO_REUSEADDR a second connection from the same client port, to any server, would
	// find the address in use.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return sock.Bind(fd, family, client)
}
