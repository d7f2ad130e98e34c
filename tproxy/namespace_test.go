package tproxy_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses that lo has in a private namespace, besides its usual ones: clients
// and servers that are all this host.
const (
	clientV4 = "10.9.9.9"
	serverV4 = "10.9.9.10"
	clientV6 = "fd99::9"
	serverV6 = "fd99::10"
)

// namespace puts the test into a network namespace of its own, on a thread of its
// own, until it ends.
func namespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
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
	check(t, err)
	defer link.Close()
	lo, err := link.LinkByName("lo")
	check(t, err)
	check(t, link.LinkSetUp(lo))
	for _, ip := range []string{clientV4, serverV4, clientV6, serverV6} {
		addr := &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(ip)), Flags: unix.IFA_F_NODAD}
		check(t, link.AddrAdd(lo, addr))
	}
	for _, ip := range []string{clientV4, serverV4, clientV6, serverV6, "::1"} {
		// The kernel makes IPv6 addresses ready in its own time.
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			routes, err := link.RouteGet(net.ParseIP(ip))
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not become an address of this host", ip)
			}
		}
	}
}

// ports narrows the range that the kernel chooses from, in this namespace.
func ports(t *testing.T, low, high string) {
	t.Helper()
	check(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(low+" "+high), 0)) // that of the calling thread
}

// nft loads rules into this namespace.
func nft(t *testing.T, rules string) {
	t.Helper()
	program, err := exec.LookPath("nft")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(program, "-f", "-") // forked from this thread, and so in its namespace
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}
