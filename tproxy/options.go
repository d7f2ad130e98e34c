package tproxy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ConnOptions are socket options that both connections of a pair have. All of them
// also have TCP_NODELAY, and SO_LINGER of 0 s: when the process is killed, the kernel
// closes them with an RST, and not with a FIN that would make what was cut off look
// whole. Who closes one in order takes that back first. The zero value leaves the kernel's own settings, with
// keep-alive on. The kernel counts keep-alive in whole seconds; less is rounded up.
type ConnOptions struct {
	// UserTimeout is TCP_USER_TIMEOUT: how long sent data may stay unacknowledged.
	// Default: 0, the kernel's own rule (net.ipv4.tcp_retries2).
	UserTimeout time.Duration
	// KeepAlive is how long a connection must be silent before it is probed
	// (TCP_KEEPIDLE). Default: 0, the kernel's own (net.ipv4.tcp_keepalive_time, two
	// hours). Negative: never.
	KeepAlive time.Duration
	// KeepAliveInterval is the time between two probes (TCP_KEEPINTVL). Default: 0, the
	// kernel's own (net.ipv4.tcp_keepalive_intvl, 75 s), but no more than KeepAlive where
	// that is set.
	KeepAliveInterval time.Duration
	// KeepAliveCount is how many probes without an answer end the connection
	// (TCP_KEEPCNT). Default: 0, the kernel's own, 9.
	KeepAliveCount int
}

// Apply sets the options on a TCP socket. A listening socket's connections inherit
// them.
func (o ConnOptions) Apply(fd int) error {
	var list [maxConnOptions]option
	for _, so := range o.options(fd, list[:0]) {
		if err := setOption(fd, so); err != nil {
			return err
		}
	}
	return nil
}

// maxConnOptions is how many options a ConnOptions sets at most.
const maxConnOptions = 7

// options are those to set on fd, put behind list.
func (o ConnOptions) options(fd int, list []option) []option {
	keepAlive := 1
	if o.KeepAlive < 0 {
		keepAlive = 0
	}
	list = append(list,
		option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, "TCP_NODELAY"},
		option{unix.SOL_SOCKET, unix.SO_LINGER, 1, "SO_LINGER"},
		option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, keepAlive, "SO_KEEPALIVE"})
	for _, so := range [...]option{
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds()), "TCP_USER_TIMEOUT"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(o.KeepAlive), "TCP_KEEPIDLE"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, o.interval(fd), "TCP_KEEPINTVL"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepAliveCount, "TCP_KEEPCNT"},
	} {
		if so.value > 0 {
			list = append(list, so)
		}
	}
	return list
}

// interval is the time between two probes, in seconds, or 0 for the kernel's own.
func (o ConnOptions) interval(fd int) int {
	if o.KeepAliveInterval > 0 || o.KeepAlive <= 0 {
		return seconds(o.KeepAliveInterval)
	}
	idle := seconds(o.KeepAlive)
	if own, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL); err == nil && own <= idle {
		return 0
	}
	return idle
}

// UseConn gives a connection that somebody else accepted what those of Listen inherit: it is
// non-blocking, has ConnOptions, and urgent data stays in the stream. Undo puts back what was there
// before. On error that has been done.
func UseConn(fd int, o ConnOptions) (undo func(), err error) {
	return use(fd, o.options(fd, []option{oobInline()}))
}

// use makes a socket of somebody else's non-blocking and sets options on it.
func use(fd int, list []option) (undo func(), err error) {
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
		put := undoOption(fd, so)
		if err := setOption(fd, so); err != nil {
			return nil, err
		}
		before = append(before, put)
	}
	return putBack, nil
}

// undoOption puts an option back to what it is now. What cannot be read was not set by anybody.
func undoOption(fd int, so option) func() {
	if so.name == unix.SO_LINGER && so.level == unix.SOL_SOCKET {
		linger, err := unix.GetsockoptLinger(fd, so.level, so.name)
		if err != nil {
			return func() {}
		}
		return func() { _ = unix.SetsockoptLinger(fd, so.level, so.name, linger) }
	}
	value, err := unix.GetsockoptInt(fd, so.level, so.name)
	if err != nil {
		return func() {}
	}
	return func() { _ = unix.SetsockoptInt(fd, so.level, so.name, value) }
}

// Multipath reports whether fd is a socket of Multipath TCP, which lacks some options, among them
// SO_OOBINLINE, IP_TRANSPARENT once it is connected, and TCP_USER_TIMEOUT. Go's listeners are such
// by default; what they accept is a plain TCP socket when the client does not speak it.
func Multipath(fd int) bool {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && protocol == unix.IPPROTO_MPTCP
}

// Check refuses what no kernel takes.
func (o ConnOptions) Check() error {
	const most = 32767 * time.Second // MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL in linux/tcp.h
	switch {
	case o.UserTimeout < 0:
		return fmt.Errorf("user timeout: %v is negative", o.UserTimeout)
	case o.UserTimeout > 0 && o.UserTimeout < time.Millisecond:
		return fmt.Errorf("user timeout: %v is less than 1ms", o.UserTimeout)
	case o.UserTimeout.Milliseconds() > 1<<31-1:
		return fmt.Errorf("user timeout: %v is more than 596 hours", o.UserTimeout)
	case o.KeepAlive > most:
		return fmt.Errorf("keep-alive: %v is more than %v", o.KeepAlive, most)
	case o.KeepAliveInterval < 0 || o.KeepAliveInterval > most:
		return fmt.Errorf("keep-alive interval: %v is not between 0 and %v", o.KeepAliveInterval, most)
	case o.KeepAliveCount < 0 || o.KeepAliveCount > 127: // MAX_TCP_KEEPCNT
		return fmt.Errorf("keep-alive count: %d is not between 0 and 127", o.KeepAliveCount)
	case o.KeepAlive < 0 && (o.KeepAliveInterval > 0 || o.KeepAliveCount > 0):
		return errors.New("keep-alive is off, but its interval or count is set")
	}
	return nil
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

type option struct {
	level, name, value int
	what               string
}

func oobInline() option { return option{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1, "SO_OOBINLINE"} }

// setOption sets one option; the error names it, and says what is missing where that is
// known. What Multipath TCP does not support is left out. SO_LINGER is that of ConnOptions.
func setOption(fd int, o option) error {
	var err error
	if o.name == unix.SO_LINGER && o.level == unix.SOL_SOCKET {
		err = unix.SetsockoptLinger(fd, o.level, o.name, &unix.Linger{Onoff: 1})
	} else {
		err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
	switch {
	case err == nil:
		return nil
	case (err == unix.EOPNOTSUPP || err == unix.ENOPROTOOPT) && Multipath(fd):
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w; run as root or grant CAP_NET_ADMIN", o.what, err)
	}
	return fmt.Errorf("%s: %w", o.what, err)
}
