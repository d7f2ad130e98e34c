package sock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel takes at most.
const (
	MaxKeepAlive   = 32767 * time.Second // MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL in linux/tcp.h
	MaxProbes      = 127                 // MAX_TCP_KEEPCNT
	MaxUserTimeout = (1<<31 - 1) * time.Millisecond
)

// ConnOptions are those of tproxy.ConnOptions, which has their meaning.
//
// Besides them, every connection has TCP_NODELAY, SO_OOBINLINE, and SO_LINGER of 0 s: when the
// process is killed, the kernel closes its connections with an RST, and not with a FIN that would
// make what was cut off look whole. CloseWithFIN takes that back first.
type ConnOptions struct {
	UserTimeout time.Duration
	KeepAlive   net.KeepAliveConfig
}

// Check refuses what no kernel takes, and what contradicts itself. The error names the field.
func (o ConnOptions) Check() error {
	k := o.KeepAlive
	switch {
	case o.UserTimeout > 0 && o.UserTimeout < time.Millisecond:
		return fmt.Errorf("UserTimeout: %v is less than 1ms", o.UserTimeout)
	case o.UserTimeout > MaxUserTimeout:
		return fmt.Errorf("UserTimeout: %v is more than %v", o.UserTimeout, MaxUserTimeout)
	case k.Idle < 0 && (k.Enable || k.Interval != 0 || k.Count != 0):
		return errors.New("KeepAlive: a negative Idle turns keep-alive off, but Enable, Interval or Count is set")
	case k.Idle > MaxKeepAlive:
		return fmt.Errorf("KeepAlive.Idle: %v is more than %v", k.Idle, MaxKeepAlive)
	case k.Interval < 0 || k.Interval > MaxKeepAlive:
		return fmt.Errorf("KeepAlive.Interval: %v is not between 0 and %v", k.Interval, MaxKeepAlive)
	case k.Count < 0 || k.Count > MaxProbes:
		return fmt.Errorf("KeepAlive.Count: %d is not between 0 and %d", k.Count, MaxProbes)
	case !k.Enable && (k.Idle > 0 || k.Interval > 0 || k.Count > 0):
		return errors.New("KeepAlive: Idle, Interval or Count is set, but Enable is not")
	}
	return nil
}

// Apply sets the options on a TCP socket, but for SO_OOBINLINE. The connections of a listening
// socket inherit them.
func (o ConnOptions) Apply(fd int) error {
	var list [maxConnOptions]Option
	for _, so := range o.list(fd, list[:0]) {
		if err := so.Set(fd); err != nil {
			return err
		}
	}
	return nil
}

// maxConnOptions is how many options a ConnOptions sets at most.
const maxConnOptions = 7

// list has the options to set on fd, behind those of list.
func (o ConnOptions) list(fd int, list []Option) []Option {
	keepAlive := 1
	if o.KeepAlive.Idle < 0 {
		keepAlive = 0
	}
	list = append(list,
		Option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, "TCP_NODELAY"},
		Option{unix.SOL_SOCKET, unix.SO_LINGER, 1, "SO_LINGER"},
		Option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, keepAlive, "SO_KEEPALIVE"})
	for _, so := range [...]Option{
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds()), "TCP_USER_TIMEOUT"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(o.KeepAlive.Idle), "TCP_KEEPIDLE"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, o.probeInterval(fd), "TCP_KEEPINTVL"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepAlive.Count, "TCP_KEEPCNT"},
	} {
		if so.Value > 0 {
			list = append(list, so)
		}
	}
	return list
}

// probeInterval is the time between two probes, in seconds, or 0 for the kernel's own.
func (o ConnOptions) probeInterval(fd int) int {
	k := o.KeepAlive
	if k.Interval > 0 || k.Idle <= 0 {
		return seconds(k.Interval)
	}
	idle := seconds(k.Idle)
	if own, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL); err == nil && own <= idle {
		return 0
	}
	return idle
}

// seconds is d in whole seconds, rounded up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// UseConn makes a connection that other code accepted like one that a listener of tproxy.Listen
// accepts: it is non-blocking, has ConnOptions, and urgent data stays in the stream. Undo puts back
// what was there before. On error that has been done.
func UseConn(fd int, o ConnOptions) (undo func(), err error) {
	return use(fd, o.list(fd, []Option{oobInline()}))
}

// UseListener makes a socket that other code opened and that listens already (systemd, or the relay
// before an upgrade) like one of tproxy.Listen, and gives its address. SO_REUSEPORT and the backlog
// stay as they are. Undo puts back what was there before. On error that has been done. Connections
// that a Multipath listener accepts do not inherit all options: give them UseConn.
func UseListener(fd int, transparent bool, o ConnOptions) (addr netip.AddrPort, undo func(), err error) {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || n == 0 {
		return addr, nil, fmt.Errorf("descriptor %d is not a listening socket", fd)
	}
	addr, err = LocalAddr(fd)
	if err != nil || !addr.IsValid() {
		return addr, nil, fmt.Errorf("descriptor %d is not a TCP socket", fd)
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil {
		undo, err = use(fd, ListenerOptions(fd, family, transparent, o))
	}
	if err != nil {
		return netip.AddrPort{}, nil, fmt.Errorf("listen %v: %w", addr, err)
	}
	return addr, undo, nil
}

// ListenerOptions are the options of a listening socket that can also be set when it is bound.
// Transparent adds IP_TRANSPARENT where it is not set already, maybe by a process with more
// privileges.
func ListenerOptions(fd, family int, transparent bool, o ConnOptions) []Option {
	list := []Option{oobInline()}
	if transparent {
		if n, err := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT); err != nil || n == 0 {
			list = append(list, Option{unix.SOL_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT"})
			if family == unix.AF_INET6 {
				list = append(list, Option{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT"})
			}
		}
	}
	return o.list(fd, list)
}

// use makes a socket that other code opened non-blocking and sets options on it.
func use(fd int, list []Option) (undo func(), err error) {
	var before []func()
	putBack := func() {
		for _, put := range slices.Backward(before) {
			put()
		}
	}
	defer func() {
		if err != nil {
			putBack()
		}
	}()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("non-blocking: %w", err)
	}
	before = append(before, func() { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags) })
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("non-blocking: %w", err)
	}
	for _, so := range list {
		put := so.saved(fd)
		if err := so.Set(fd); err != nil {
			return nil, err
		}
		before = append(before, put)
	}
	return putBack, nil
}

// Multipath reports whether fd is a socket of Multipath TCP, which lacks some options, among them
// SO_OOBINLINE, IP_TRANSPARENT once it is connected, and TCP_USER_TIMEOUT. Go's listeners are such
// by default; what they accept is a plain TCP socket when the client does not speak it.
func Multipath(fd int) bool {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && protocol == unix.IPPROTO_MPTCP
}

// Option is a socket option with a number for its value. SO_LINGER with any value means one of 0 s.
type Option struct {
	Level, Option, Value int
	Name                 string // in errors: SO_KEEPALIVE
}

func oobInline() Option { return Option{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1, "SO_OOBINLINE"} }

func (o Option) isLinger() bool { return o.Level == unix.SOL_SOCKET && o.Option == unix.SO_LINGER }

// Set sets the option. The error names it, and says what is missing where that is known. An option
// that Multipath TCP does not support is left out.
func (o Option) Set(fd int) error {
	var err error
	if o.isLinger() {
		err = unix.SetsockoptLinger(fd, o.Level, o.Option, &unix.Linger{Onoff: 1})
	} else {
		err = unix.SetsockoptInt(fd, o.Level, o.Option, o.Value)
	}
	switch {
	case err == nil:
		return nil
	case (err == unix.EOPNOTSUPP || err == unix.ENOPROTOOPT) && Multipath(fd):
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w; run as root or grant CAP_NET_ADMIN", o.Name, err)
	}
	return fmt.Errorf("%s: %w", o.Name, err)
}

// saved gives a function that puts the option back to what it is now. An option that cannot be read
// is one that was not set.
func (o Option) saved(fd int) (put func()) {
	if o.isLinger() {
		linger, err := unix.GetsockoptLinger(fd, o.Level, o.Option)
		if err != nil {
			return func() {}
		}
		return func() { _ = unix.SetsockoptLinger(fd, o.Level, o.Option, linger) }
	}
	value, err := unix.GetsockoptInt(fd, o.Level, o.Option)
	if err != nil {
		return func() {}
	}
	return func() { _ = unix.SetsockoptInt(fd, o.Level, o.Option, value) }
}
