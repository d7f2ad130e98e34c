package tproxy

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// Dialer opens outgoing connections, in the client's name where its policy says
// so. Urgent data stays in the stream (SO_OOBINLINE). The zero value spoofs nothing in Forward and Redirect mode; see Spoof.First.
type Dialer struct {
	Spoof Spoof
	// Mark is set as SO_MARK. Default: 0, none.
	Mark uint32
	// Control is called with each socket before anything is set on it, as that of net.Dialer. An error
	// closes the socket, and Dial returns it as it is. Default: nil.
	Control func(fd int) error
	// ConnOptions of the connections.
	ConnOptions
}

// Dial starts to connect to destination, beginning at the given step of the
// ladder and climbing down as far as the policy allows while addresses are
// taken, or are below 1024 and this process lacks CAP_NET_BIND_SERVICE. The connection is usually still being made when Dial returns: wait
// until fd is writable and ask SO_ERROR. The error is a bare unix.Errno, and
// step is then the one that failed last.
func (d *Dialer) Dial(client, destination netip.AddrPort, step Step) (fd int, at Step, err error) {
	for {
		fd, err = d.dial(client, destination, step)
		if err != unix.EADDRINUSE && err != unix.EADDRNOTAVAIL && (err != unix.EACCES || step != StepFull) {
			return fd, step, err
		}
		next, ok := d.Spoof.Next(step)
		if !ok {
			return -1, step, err
		}
		step = next
	}
}

// Check tries on a socket of its own what Dial will need, and says what to do where that is not
// permitted. Spoof: some dials begin above StepNone. CAP_NET_RAW will do instead of CAP_NET_ADMIN,
// for Mark since Linux 5.17.
func (d *Dialer) Check(spoof bool) error {
	family, somebody := unix.AF_INET, netip.AddrFrom4([4]byte{192, 0, 2, 1}) // TEST-NET-1: nobody's
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == unix.EAFNOSUPPORT {
		family, somebody = unix.AF_INET6, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}) // 2001:db8::1
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := d.sock().Check(); err != nil {
		return err
	}
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
	switch err := bindAs(fd, family, netip.AddrPortFrom(somebody, 0), StepFull); err {
	case nil:
		return nil
	case unix.EPERM:
		return fmt.Errorf("connect from the clients' addresses: IP_TRANSPARENT: %w; run as root or grant CAP_NET_ADMIN, or choose spoof none", err)
	default:
		return fmt.Errorf("connect from the clients' addresses: bind to %v: %w", somebody, err)
	}
}

func (d *Dialer) dial(client, destination netip.AddrPort, step Step) (int, error) {
	family := sock.Family(destination.Addr())
	if step != StepNone && sock.Family(client.Addr()) != family {
		return -1, unix.EAFNOSUPPORT // nobody can speak IPv4 in the name of an IPv6 address
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
	if err == nil && step != StepNone {
		err = bindAs(fd, family, client, step)
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
	// From the beginning: a read that comes before anybody hears of urgent data would lose the byte.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		return err
	}
	if d.Mark != 0 {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(d.Mark))
	}
	return nil
}

// bindAs binds fd to the client's address, before it connects.
func bindAs(fd, family int, client netip.AddrPort, step Step) error {
	level, name := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, name = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, name, 1); err != nil {
		return err
	}
	if step == StepIP {
		// The kernel chooses the port in connect, where it knows the whole
		// 4-tuple, and not in bind, where 28,000 ports are all there are.
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		return sock.Bind(fd, family, netip.AddrPortFrom(client.Addr(), 0))
	}
	// Without SO_REUSEADDR a second connection from the same client port, to
	// whichever server, would find the address in use.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return sock.Bind(fd, family, client)
}
