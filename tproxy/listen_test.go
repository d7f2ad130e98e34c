package tproxy_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/tproxy"
)

func TestAcceptedConnectionInheritsItsOptions(t *testing.T) {
	listener, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{ConnOptions: connOptions})
	connect(t, at("127.0.0.1", port))
	conn, _ := accept(t, listener)
	expectOptions(t, conn, append(wantOptions, wantOption{"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}))
}

func TestDescriptorsAreNonBlockingAndCloseOnExec(t *testing.T) {
	listener, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	out := connect(t, at("127.0.0.1", port))
	conn, _ := accept(t, listener)
	for what, fd := range map[string]int{"listener": listener, "accepted": conn, "dialed": out} {
		status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		check(t, err)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		check(t, err)
		if status&unix.O_NONBLOCK == 0 || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: status %#x, flags %#x", what, status, flags)
		}
	}
}

func TestAcceptWithoutConnectionIsEAGAIN(t *testing.T) {
	listener, _ := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	if fd, _, err := tproxy.Accept(listener); fd != -1 || err != unix.EAGAIN {
		t.Errorf("%d, %v", fd, err)
	}
}

func TestTransparentListener(t *testing.T) {
	namespace(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		fd, _ := listen(t, address, tproxy.ListenOptions{Transparent: true})
		if getsockopt(t, fd, unix.SOL_IP, unix.IP_TRANSPARENT) != 1 {
			t.Errorf("%s: IP_TRANSPARENT is not set", address)
		}
		if strings.HasPrefix(address, "[") && getsockopt(t, fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT) != 1 {
			t.Errorf("%s: IPV6_TRANSPARENT is not set", address)
		}
	}
	listen(t, "192.0.2.7:0", tproxy.ListenOptions{Transparent: true}) // an address of no interface
}

func TestReusePortSharesTheAddress(t *testing.T) {
	_, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{ReusePort: true})
	again, err := tproxy.Listen(at("127.0.0.1", port), tproxy.ListenOptions{ReusePort: true, Backlog: 3})
	check(t, err)
	unix.Close(again)
}

func TestWildcardOfIPv6TakesBothFamilies(t *testing.T) {
	listener, port := listen(t, "[::]:0", tproxy.ListenOptions{})
	for _, ip := range []string{"127.0.0.1", "::1"} {
		connect(t, at(ip, port))
		if _, client := accept(t, listener); client.Addr().String() != ip {
			t.Errorf("client %v, want %s", client, ip)
		}
	}
}

func TestIPv6AddressLeavesIPv4Alone(t *testing.T) {
	_, port := listen(t, "[::1]:0", tproxy.ListenOptions{})
	fd, err := tproxy.Listen(at("127.0.0.1", port), tproxy.ListenOptions{})
	check(t, err)
	unix.Close(fd)
}

func TestMappedAddressIsIPv4(t *testing.T) {
	listener, port := listen(t, "[::ffff:127.0.0.1]:0", tproxy.ListenOptions{})
	if got := local(t, listener); got != at("127.0.0.1", port) {
		t.Errorf("listens on %v", got)
	}
	connect(t, at("::ffff:127.0.0.1", port))
	accept(t, listener)
}

func TestListenErrorsSayWhatToDo(t *testing.T) {
	before := leak.Descriptors()
	fd, port := func() (int, uint16) {
		fd, err := tproxy.Listen(addr("127.0.0.1:0"), tproxy.ListenOptions{})
		check(t, err)
		return fd, local(t, fd).Port()
	}()
	for _, c := range []struct{ address, want string }{
		{at("127.0.0.1", port).String(), "bind: address already in use; choose another port, or stop the program that has it (ss -ltnp shows which)"},
		{"192.0.2.7:80", "bind: cannot assign requested address; no interface of this host has that address (ip addr shows them)"},
	} {
		_, err := tproxy.Listen(addr(c.address), tproxy.ListenOptions{})
		if want := "listen " + c.address + ": " + c.want; err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	unix.Close(fd)
	if now := leak.Descriptors(); !maps.Equal(now, before) {
		t.Errorf("descriptors before: %v, now: %v", before, now)
	}
}

func TestListenWithoutDescriptorsFails(t *testing.T) {
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	unix.Close(free)
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: limit.Max}))
	_, listening := tproxy.Listen(addr("127.0.0.1:0"), tproxy.ListenOptions{})
	var d tproxy.Dialer
	fd, level, dialing := d.Dial(addr("10.9.9.9:1"), addr("127.0.0.1:1"), tproxy.LevelFull)
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if listening == nil || listening.Error() != "listen 127.0.0.1:0: socket: too many open files" {
		t.Errorf("listen: %v", listening)
	}
	if fd != -1 || level != tproxy.LevelFull || dialing != unix.EMFILE {
		t.Errorf("dial: %d, level %v, %v", fd, level, dialing)
	}
}

func TestUnprivilegedUserIsToldWhatToGrant(t *testing.T) {
	tasks := map[string]string{
		"transparent 127.0.0.1:0": "listen 127.0.0.1:0: IP_TRANSPARENT: operation not permitted; run as root or grant CAP_NET_ADMIN",
		"transparent [::]:0":      "listen [::]:0: IP_TRANSPARENT: operation not permitted; run as root or grant CAP_NET_ADMIN",
		"ordinary 127.0.0.1:99":   "listen 127.0.0.1:99: bind: permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE",
		"spoof 127.0.0.1:99":      "full: operation not permitted",
	}
	first, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	check(t, err)
	if n, err := strconv.Atoi(strings.TrimSpace(string(first))); err != nil || n <= 99 {
		delete(tasks, "ordinary 127.0.0.1:99") // low ports are open to everybody here
	}
	for task, want := range tasks {
		child := exec.Command("/proc/self/exe") // the binary's directory may be closed to others
		child.Env = append(os.Environ(), taskVariable+"="+task)
		if os.Getuid() == 0 {
			child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := child.Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %v\n%s\nwant %s", task, err, out, want)
		}
	}
}

// runTask is what an unprivileged child does: it prints how listening or dialing
// failed.
func runTask(task string) (status int) {
	how, address, _ := strings.Cut(task, " ")
	if how == "spoof" { // no ladder leads around a missing privilege
		d := tproxy.Dialer{Spoof: tproxy.SpoofFullOrNone}
		_, level, err := d.Dial(addr("192.0.2.1:4321"), addr(address), tproxy.LevelFull)
		fmt.Printf("%v: %v\n", level, err)
		return 0
	}
	_, err := tproxy.Listen(addr(address), tproxy.ListenOptions{Transparent: how == "transparent"})
	fmt.Println(err)
	return 0
}
