package sock

import (
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls in this file are those of package unix, without its allocations: there every address
// comes back as a Sockaddr on the heap, and a relay that opens 10,000 pairs a second handles 40,000
// addresses. IPv4-mapped addresses come back as IPv4, and zones as the interface's index.

// sockaddr is room for an IPv4 or IPv6 socket address as the kernel writes it.
type sockaddr struct {
	unix.RawSockaddrInet6
	size uint32
}

func (s *sockaddr) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.RawSockaddrInet6))
}

// set stores addr for a socket of the given family. An IPv4 address for an
// AF_INET6 socket becomes IPv4-mapped. The zone is a number: see NumericZone.
func (s *sockaddr) set(family int, addr netip.AddrPort) {
	port := addr.Port()<<8 | addr.Port()>>8 // network order; amd64 and arm64 are little-endian
	if family == unix.AF_INET {
		*s.inet4() = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: addr.Addr().Unmap().As4()}
		s.size = unix.SizeofSockaddrInet4
		return
	}
	s.RawSockaddrInet6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: addr.Addr().As16(), Scope_id: Scope(addr.Addr())}
	s.size = unix.SizeofSockaddrInet6
}

// Scope is the interface's index in the zone of addr, or 0 where the zone is empty or a name.
func Scope(addr netip.Addr) uint32 {
	if addr.Zone() == "" {
		return 0
	}
	n, err := strconv.ParseUint(addr.Zone(), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// WithScope is addr with the interface's index as its zone. Index 0 means no zone.
func WithScope(addr netip.Addr, index uint32) netip.Addr {
	if index == 0 {
		return addr
	}
	return addr.WithZone(strconv.FormatUint(uint64(index), 10))
}

// NumericZone replaces the name of an interface in the zone of addr by the index that it has in
// the network namespace of the calling thread. The other functions of this package know zones only
// as numbers. The error is ENODEV where there is no such interface.
func NumericZone(addr netip.AddrPort) (netip.AddrPort, error) {
	zone := addr.Addr().Zone()
	if zone == "" || Scope(addr.Addr()) != 0 {
		return addr, nil
	}
	request, err := unix.NewIfreq(zone)
	if err != nil {
		return addr, unix.ENODEV // too long for a name
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return addr, err
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return addr, err
	}
	return netip.AddrPortFrom(WithScope(addr.Addr(), request.Uint32()), addr.Port()), nil
}

// get is the address that the kernel stored; IPv4-mapped ones come as IPv4.
func (s *sockaddr) get() netip.AddrPort {
	port := s.Port<<8 | s.Port>>8
	switch s.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4(s.inet4().Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(WithScope(netip.AddrFrom16(s.Addr).Unmap(), s.Scope_id), port)
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

// Accept takes a connection from listening socket fd. The new descriptor is non-blocking and
// close-on-exec.
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

// LocalAddr is the address of fd's own end. It is invalid, without an error, for a socket that is
// neither IPv4 nor IPv6.
func LocalAddr(fd int) (netip.AddrPort, error) { return name(unix.SYS_GETSOCKNAME, fd) }

// PeerAddr is the address of fd's other end. It is invalid, without an error, for a socket that is
// neither IPv4 nor IPv6.
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

// OriginalDestination is what connection tracking remembers as the destination of a connection that
// was redirected. Family is that of the client's address. The error is ENOENT if the connection is
// not tracked.
func OriginalDestination(fd, family int) (netip.AddrPort, error) {
	level := unix.SOL_IP
	if family == unix.AF_INET6 {
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

// soOriginalDst is SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and IP6T_SO_ORIGINAL_DST
// (linux/netfilter_ipv6/ip6_tables.h): the same number on two levels.
const soOriginalDst = 80

// Bind binds fd, a socket of the given family, to addr.
func Bind(fd, family int, addr netip.AddrPort) error {
	var s sockaddr
	s.set(family, addr)
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&s.RawSockaddrInet6)), uintptr(s.size))
	return errnoErr(e)
}

// Connect starts to connect fd, a socket of the given family, to addr. On a non-blocking socket the
// error is EINPROGRESS while the connection is being made.
func Connect(fd, family int, addr netip.AddrPort) error {
	var s sockaddr
	s.set(family, addr)
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&s.RawSockaddrInet6)), uintptr(s.size))
	return errnoErr(e)
}

// Family is AF_INET for IPv4 and IPv4-mapped addresses, and AF_INET6 otherwise.
func Family(addr netip.Addr) int {
	if addr.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
