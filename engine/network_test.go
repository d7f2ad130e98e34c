package engine

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// PrivateNetwork puts the test, and the processes that it starts, into a network
// namespace with nothing but loopback, until it ends, and sets these files of
// /proc/sys/net/ipv4. Other threads get there with enter.
func PrivateNetwork(t testing.TB, settings map[string]string) (enter func() error) {
	t.Helper()
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		if errors.Is(err, unix.EPERM) {
			t.Skip("network namespaces need root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := unix.Setns(home, unix.CLONE_NEWNET)
		unix.Close(home)
		if err != nil {
			t.Errorf("back to the first namespace: %v", err)
			return // the thread, still locked, ends with the test
		}
		runtime.UnlockOSThread()
	})
	link, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	lo, err := link.LinkByName("lo")
	if err == nil {
		err = link.LinkSetUp(lo)
	}
	if err == nil {
		err = link.LinkSetMTU(lo, 1500) // the segments of loopback, of 64 KiB, do not go well with small buffers
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range settings {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil { // that of the calling thread
			t.Fatal(err)
		}
	}
	inside, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(inside) })
	return func() error { return unix.Setns(inside, unix.CLONE_NEWNET) }
}
