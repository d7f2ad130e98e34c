package tproxy

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls in this file are those of package unix, without its allocations:
// there every address comes back as a Sockaddr on the heap, and a relay that
// opens 10,000 pairs a second handles 40,000 addresses.

// sockaddr is room for an IPv4 or IPv6 socket address as the kernel writes it.
type sockaddr struct {
	unix.RawSockaddrInet6
	size uint32
}

func (s *sockaddr) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.RawSockaddrInet6))
}

// set stores addr for a socket of the given family. An IPv4 address for an
// AF_INET6 socket becomes IPv4-mapped.
func (s *sockaddr) set(family int, addr netip.AddrPort) {
	port := addr.Port()<<8 | addr.Port()>>8 // network order; amd64 and arm64 are little-endian
	if family == unix.AF_INET {
		*s.inet4() = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: addr.Addr().Unmap().As4()}
		s.size = unix.SizeofSockaddrInet4
		return
	}
	s.RawSockaddrInet6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: addr.Addr().As16()}
	s.size = unix.SizeofSockaddrInet6
}

// get is the address that the kernel stored; IPv4-mapped ones come as IPv4.
func (s *sockaddr) get() netip.AddrPort {
	port := s.Port<<8 | s.Port>>8
	switch s.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4(s.inet4().Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), port)
	}
	return netip.AddrPort{}
}

func (s *sockaddr) room() { s.size = unix.SizeofSockaddrInet6 }

// errnoErr spares the nil check at every call: a zero errno is no error.
func errnoErr(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// Accept takes a connection from listening socket fd. The new descriptor is
// non-blocking and close-on-exec. The error is a bare unix.Errno.
func Accept(fd int) (conn int, client netip.AddrPort, err error) {
	var s sockaddr
	s.room()
	n, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&s.RawSockaddrInet6)),
		uintptr(unsafe.Pointer(&s.size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, client, e
	}
	return int(n), s.get(), nil
}

// LocalAddr is the address of fd's own end. On a connection that TPROXY handed
// over it is the original destination.
func LocalAddr(fd int) (netip.AddrPort, error) { return name(unix.SYS_GETSOCKNAME, fd) }

// PeerAddr is the address of fd's other end.
func PeerAddr(fd int) (netip.AddrPort, error) { return name(unix.SYS_GETPEERNAME, fd) }

func name(call uintptr, fd int) (netip.AddrPort, error) {
	var s sockaddr
	s.room()
	_, _, e := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&s.RawSockaddrInet6)), uintptr(unsafe.Pointer(&s.size)))
	if e != 0 {
		return netip.AddrPort{}, e
	}
	return s.get(), nil
}

func bind(fd, family int, addr netip.AddrPort) error {
	var s sockaddr
	s.set(family, addr)
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&s.RawSockaddrInet6)), uintptr(s.size))
	return errnoErr(e)
}

func connect(fd, family int, addr netip.AddrPort) error {
	var s sockaddr
	s.set(family, addr)
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&s.RawSockaddrInet6)), uintptr(s.size))
	return errnoErr(e)
}

func familyOf(addr netip.Addr) int {
	if addr.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
