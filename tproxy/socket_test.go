package tproxy_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// patience is how long a test waits for an event, in milliseconds.
const patience = 10_000

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// addr reads an address and port.
func addr(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// at is a port of an address.
func at(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// listen opens a listener that is closed with the test; port 0 means any.
func listen(t testing.TB, address string, o tproxy.ListenOptions) (fd int, port uint16) {
	t.Helper()
	fd, err := tproxy.Listen(addr(address), o)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	local, err := sock.LocalAddr(fd)
	check(t, err)
	return fd, local.Port()
}

// dial opens a connection, which must be established, and closes it with the test.
func dial(t testing.TB, d tproxy.Dialer, client, destination netip.AddrPort, level tproxy.SpoofLevel) (fd int, on tproxy.SpoofLevel) {
	t.Helper()
	fd, on, err := d.Dial(client, destination, level)
	if err != nil {
		t.Fatalf("dial %v as %v, level %v: %v", destination, client, on, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	await(t, fd, unix.POLLOUT)
	if e := getsockopt(t, fd, unix.SOL_SOCKET, unix.SO_ERROR); e != 0 {
		t.Fatalf("dial %v as %v, level %v: %v", destination, client, on, unix.Errno(e))
	}
	return fd, on
}

// connect opens an ordinary connection.
func connect(t testing.TB, destination netip.AddrPort) int {
	t.Helper()
	fd, _ := dial(t, tproxy.Dialer{}, netip.AddrPort{}, destination, tproxy.LevelNone)
	return fd
}

// accept takes the next connection, and closes it with the test.
func accept(t testing.TB, listener int) (conn int, client netip.AddrPort) {
	t.Helper()
	await(t, listener, unix.POLLIN)
	conn, client, err := tproxy.Accept(listener)
	check(t, err)
	t.Cleanup(func() { unix.Close(conn) })
	return conn, client
}

func await(t testing.TB, fd int, events int16) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, patience)
		if err == unix.EINTR {
			continue
		}
		check(t, err)
		if n == 0 {
			t.Fatalf("descriptor %d: no event of %#x", fd, events)
		}
		return
	}
}

func getsockopt(t testing.TB, fd, level, option int) int {
	t.Helper()
	value, err := unix.GetsockoptInt(fd, level, option)
	check(t, err)
	return value
}

func local(t testing.TB, fd int) netip.AddrPort {
	t.Helper()
	a, err := sock.LocalAddr(fd)
	check(t, err)
	return a
}

func peer(t testing.TB, fd int) netip.AddrPort {
	t.Helper()
	a, err := sock.PeerAddr(fd)
	check(t, err)
	return a
}
