package tproxy_test

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

var connOptions = tproxy.ConnOptions{
	UserTimeout: 12345 * time.Millisecond, KeepAlive: 1500 * time.Millisecond, KeepAliveInterval: 3 * time.Second, KeepAliveCount: 4,
}

type wantOption struct {
	what                string
	level, option, want int
}

// wantOptions is what a socket with connOptions says.
var wantOptions = slices.Clip([]wantOption{
	{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2},
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 3},
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
})

func expectOptions(t *testing.T, fd int, want []wantOption) {
	t.Helper()
	for _, o := range want {
		if got := getsockopt(t, fd, o.level, o.option); got != o.want {
			t.Errorf("%s is %d, want %d", o.what, got, o.want)
		}
	}
}

func TestKeepAliveCanBeOff(t *testing.T) {
	listener, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	if _, _, err := tproxy.UseListener(listener, tproxy.ListenOptions{ConnOptions: tproxy.ConnOptions{KeepAlive: -1}}); err != nil {
		t.Fatal(err)
	}
	connect(t, at("127.0.0.1", port))
	conn, _ := accept(t, listener)
	expectOptions(t, conn, []wantOption{{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}})
}

func TestConnOptionsThatNoKernelTakes(t *testing.T) {
	for what, o := range map[string]tproxy.ConnOptions{
		"negative user timeout":     {UserTimeout: -1},
		"user timeout below 1 ms":   {UserTimeout: time.Microsecond},
		"user timeout of a month":   {UserTimeout: 30 * 24 * time.Hour},
		"keep-alive of ten hours":   {KeepAlive: 10 * time.Hour},
		"interval of ten hours":     {KeepAliveInterval: 10 * time.Hour},
		"negative interval":         {KeepAliveInterval: -1},
		"128 probes":                {KeepAliveCount: 128},
		"off, but with an interval": {KeepAlive: -1, KeepAliveInterval: time.Second},
	} {
		if o.Check() == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if err := connOptions.Check(); err != nil {
		t.Error(err)
	}
	// What Check lets pass, the kernel takes.
	listener, _ := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	for _, o := range []tproxy.ConnOptions{
		{KeepAlive: 32767 * time.Second, KeepAliveInterval: 32767 * time.Second, KeepAliveCount: 127, UserTimeout: (1<<31 - 1) * time.Millisecond},
		{KeepAlive: 1, KeepAliveInterval: 1, KeepAliveCount: 1, UserTimeout: time.Millisecond},
	} {
		if err := o.Check(); err != nil {
			t.Error(err)
		}
		if err := o.Apply(listener); err != nil {
			t.Error(err)
		}
	}
}

// TestUseListener: a socket that somebody else opened serves like an own one, and what is
// none is told apart.
func TestUseListener(t *testing.T) {
	own, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	out := connect(t, at("127.0.0.1", port))
	addr, _, err := tproxy.UseListener(own, tproxy.ListenOptions{ConnOptions: connOptions})
	if err != nil || addr != at("127.0.0.1", port) {
		t.Errorf("%v, %v", addr, err)
	}
	if _, _, err := tproxy.UseListener(out, tproxy.ListenOptions{}); err == nil {
		t.Error("a connection passes for a listener")
	}
	unixSocket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(unixSocket)
	check(t, unix.Bind(unixSocket, &unix.SockaddrUnix{}))
	check(t, unix.Listen(unixSocket, 1))
	if _, _, err := tproxy.UseListener(unixSocket, tproxy.ListenOptions{}); err == nil {
		t.Error("a unix socket passes for a TCP listener")
	}
}

// TestUseConnIsUndone: what it has set is as before, also on a socket that blocks.
func TestUseConnIsUndone(t *testing.T) {
	_, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	fd := connect(t, at("127.0.0.1", port))
	check(t, unix.SetNonblock(fd, false))
	state := func() (s [9]int) {
		for i, o := range [][2]int{
			{unix.SOL_SOCKET, unix.SO_OOBINLINE}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_NODELAY},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		} {
			s[i] = getsockopt(t, fd, o[0], o[1])
		}
		linger, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
		check(t, err)
		s[7] = int(linger.Onoff)
		s[8], err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		check(t, err)
		return s
	}
	before := state()
	undo, err := tproxy.UseConn(fd, connOptions)
	check(t, err)
	if state() == before {
		t.Error("nothing was set")
	}
	undo()
	if after := state(); after != before {
		t.Errorf("%v, before %v", after, before)
	}
}

// TestProbesComeNoLaterThanTheFirst: a connection that is probed after 30 s of silence must not
// wait 75 s for the second probe.
func TestProbesComeNoLaterThanTheFirst(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fd)
	own := getsockopt(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
	for _, c := range []struct {
		o    tproxy.ConnOptions
		want int
	}{
		{tproxy.ConnOptions{}, own},
		{tproxy.ConnOptions{KeepAlive: time.Duration(own+1) * time.Second}, own},
		{tproxy.ConnOptions{KeepAlive: time.Duration(own-1) * time.Second}, own - 1},
		{tproxy.ConnOptions{KeepAlive: time.Second / 2}, 1},
		{tproxy.ConnOptions{KeepAlive: time.Second, KeepAliveInterval: 20 * time.Second}, 20},
	} {
		check(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, own))
		check(t, c.o.Apply(fd))
		if got := getsockopt(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL); got != c.want {
			t.Errorf("%+v: %d s, want %d", c.o, got, c.want)
		}
	}
}
