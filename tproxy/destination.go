package tproxy

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and
// IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv6/ip6_tables.h): the same number on
// two levels.
const soOriginalDst = 80

// Destination is where the client of accepted connection fd meant to go. In
// TPROXY mode that is the socket's own address, and never SO_ORIGINAL_DST, which
// names the client itself when only one way is exempt from connection tracking
// (haproxy issue 3192). In Redirect mode it is what connection tracking
// remembers. A client that connected to the listener on purpose yields the
// listener's own address if its connection is tracked, and ENOENT if it is not.
// Forward mode has no original destination: it is the
// socket's own address too.
func Destination(fd int, m Mode, client netip.Addr) (netip.AddrPort, error) {
	if m != Redirect {
		return LocalAddr(fd)
	}
	level := unix.SOL_IP
	if familyOf(client) == unix.AF_INET6 {
		level = unix.SOL_IPV6
	}
	var s sockaddr
	s.room()
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst,
		uintptr(unsafe.Pointer(&s.RawSockaddrInet6)), uintptr(unsafe.Pointer(&s.size)), 0)
	if e != 0 {
		return netip.AddrPort{}, e
	}
	return s.get(), nil
}
