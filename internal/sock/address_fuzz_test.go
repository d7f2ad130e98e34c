package sock

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzSockaddr: whatever the kernel stores is an address or none, and an address comes back
// as it was stored.
func FuzzSockaddr(f *testing.F) {
	f.Add([]byte{2, 0, 0x23, 0x83, 127, 0, 0, 1})
	f.Add([]byte{10, 0, 0, 80, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{10, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1})
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s sockaddr
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&s.RawSockaddrInet6)), unix.SizeofSockaddrInet6), raw)
		got := s.get()
		if known := s.Family == unix.AF_INET || s.Family == unix.AF_INET6; got.IsValid() != known {
			t.Fatalf("family %d gives %v", s.Family, got)
		}
		if !got.IsValid() {
			return
		}
		if got.Addr().Is4In6() {
			t.Fatalf("%v is not unmapped", got)
		}
		families := []int{unix.AF_INET6}
		if got.Addr().Is4() {
			families = append(families, unix.AF_INET)
		}
		for _, family := range families {
			var again sockaddr
			again.set(family, got)
			if back := again.get(); back != got || int(again.Family) != family {
				t.Errorf("%v comes back as %v of family %d", got, back, again.Family)
			}
		}
		again, err := netip.ParseAddrPort(got.String())
		if err != nil || again != got {
			t.Errorf("%v: %v", got, err)
		}
	})
}
