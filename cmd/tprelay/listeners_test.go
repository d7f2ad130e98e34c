package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/tproxy"
)

func listenFlags(addresses ...netip.AddrPort) (flags []cli.Listen) {
	for _, a := range addresses {
		flags = append(flags, cli.Listen{AddrPort: a})
	}
	return flags
}

func addresses(text string) (list []netip.AddrPort) {
	for field := range strings.FieldsSeq(text) {
		list = append(list, netip.MustParseAddrPort(field))
	}
	return list
}

func TestListenersAreWhatIsAskedForAndWhatIsPassed(t *testing.T) {
	for _, c := range []struct {
		name, listen, passed, before, want, err string
	}{
		{name: "as asked", listen: "127.0.0.1:1 [::]:2", want: "127.0.0.1:1[] [::]:2[]"},
		{name: "as passed", passed: "127.0.0.1:1 [::]:2", want: "127.0.0.1:1[10] [::]:2[11]"},
		{name: "two sockets for one address", passed: "127.0.0.1:1 127.0.0.1:1", want: "127.0.0.1:1[10 11]"},
		{name: "both", listen: "127.0.0.1:1 [::]:2", passed: "[::]:2", want: "127.0.0.1:1[] [::]:2[10]"},
		{name: "not asked for", listen: "127.0.0.1:1", passed: "[::]:2", err: "systemd passed socket s ([::]:2), which no --listen names"},
		{name: "nothing", err: "--listen ADDR:PORT is missing"},
		{name: "a free port, after an upgrade", listen: "127.0.0.1:0 [::]:0", before: "127.0.0.1:40001 [::]:40002", want: "127.0.0.1:40001[] [::]:40002[]"},
		{name: "another address after an upgrade", listen: "127.0.0.1:0", before: "127.0.0.2:40001", want: "127.0.0.1:0[]"},
		{name: "what systemd passed the one before", before: "127.0.0.1:1", want: "127.0.0.1:1[]"},
	} {
		cmd := runCmd{Listen: listenFlags(addresses(c.listen)...), Mode: modeFlag{tproxy.Forward}}
		var passed []passedSocket
		for i, a := range addresses(c.passed) {
			passed = append(passed, passedSocket{fd: 10 + i, name: "s", address: a})
		}
		at, err := cmd.listeners(passed, addresses(c.before))
		var got []string
		for _, l := range at {
			got = append(got, fmt.Sprintf("%v%v", l.address, l.sockets))
		}
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || !cli.IsUsage(err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
		case err != nil || strings.Join(got, " ") != c.want:
			t.Errorf("%s: %q, %v; want %s", c.name, got, err, c.want)
		}
	}
}

func TestPassedSocketMustBeTransparentForTPROXY(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		cmd := runCmd{Mode: modeFlag{tproxy.TPROXY}}
		passed := []passedSocket{{fd: int(fd), name: "relay.socket", address: l.Addr().(*net.TCPAddr).AddrPort()}}
		want := "systemd passed socket relay.socket (" + l.Addr().String() + "), which cannot accept TPROXY connections; its .socket unit needs Transparent=yes"
		if _, err := cmd.listeners(passed, nil); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if err := unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); errors.Is(err, unix.EPERM) {
			t.Skip("needs CAP_NET_ADMIN")
		} else if err != nil {
			t.Fatal(err)
		}
		if at, err := cmd.listeners(passed, nil); err != nil || len(at) != 1 {
			t.Errorf("%v, %v", at, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
