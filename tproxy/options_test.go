package tproxy_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

var connOptions = tproxy.ConnOptions{
	UserTimeout: 12345 * time.Millisecond,
	KeepAlive:   net.KeepAliveConfig{Enable: true, Idle: 1500 * time.Millisecond, Interval: 3 * time.Second, Count: 4},
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
	if _, _, err := sock.UseListener(listener, false, sock.ConnOptions{KeepAlive: net.KeepAliveConfig{Idle: -1}}); err != nil {
		t.Fatal(err)
	}
	connect(t, at("127.0.0.1", port))
	conn, _ := accept(t, listener)
	expectOptions(t, conn, []wantOption{{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}})
}

// TestConnOptionsThatNoKernelTakes: the error names the field.
func TestConnOptionsThatNoKernelTakes(t *testing.T) {
	set := func(k net.KeepAliveConfig) net.KeepAliveConfig { k.Enable = true; return k }
	for want, o := range map[string]tproxy.ConnOptions{
		"UserTimeout: 1µs is less":            {UserTimeout: time.Microsecond},
		"UserTimeout: 720h0m0s is more":       {UserTimeout: 30 * 24 * time.Hour},
		"KeepAlive.Idle: 10h0m0s is more":     {KeepAlive: set(net.KeepAliveConfig{Idle: 10 * time.Hour})},
		"KeepAlive.Interval: 10h0m0s is not":  {KeepAlive: set(net.KeepAliveConfig{Interval: 10 * time.Hour})},
		"KeepAlive.Interval: -1ns is not":     {KeepAlive: set(net.KeepAliveConfig{Interval: -1})},
		"KeepAlive.Count: 128 is not":         {KeepAlive: set(net.KeepAliveConfig{Count: 128})},
		"KeepAlive: a negative Idle":          {KeepAlive: net.KeepAliveConfig{Idle: -1, Interval: time.Second}},
		"KeepAlive: a negative Idle turns":    {KeepAlive: set(net.KeepAliveConfig{Idle: -1})},
		"KeepAlive: Idle, Interval or Count ": {KeepAlive: net.KeepAliveConfig{Idle: time.Second}},
	} {
		fd, err := tproxy.Listen(addr("127.0.0.1:0"), tproxy.ListenOptions{ConnOptions: o})
		if err == nil {
			unix.Close(fd)
		}
		dialer := tproxy.Dialer{ConnOptions: o}
		for _, err := range []error{err, dialer.Check(false)} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	// The kernel accepts the limits.
	for _, o := range []tproxy.ConnOptions{
		connOptions, {UserTimeout: -1},
		{
			KeepAlive:   set(net.KeepAliveConfig{Idle: 32767 * time.Second, Interval: 32767 * time.Second, Count: 127}),
			UserTimeout: (1<<31 - 1) * time.Millisecond,
		},
		{KeepAlive: set(net.KeepAliveConfig{Idle: 1, Interval: 1, Count: 1}), UserTimeout: time.Millisecond},
	} {
		listen(t, "127.0.0.1:0", tproxy.ListenOptions{ConnOptions: o})
		dialer := tproxy.Dialer{ConnOptions: o}
		check(t, dialer.Check(false))
	}
}

// TestUseListener: a socket that other code opened can be used, and a descriptor that is no
// listening TCP socket is refused.
func TestUseListener(t *testing.T) {
	own, port := listen(t, "127.0.0.1:0", tproxy.ListenOptions{})
	out := connect(t, at("127.0.0.1", port))
	addr, _, err := sock.UseListener(own, false, sock.ConnOptions(connOptions))
	if err != nil || addr != at("127.0.0.1", port) {
		t.Errorf("%v, %v", addr, err)
	}
	if _, _, err := sock.UseListener(out, false, sock.ConnOptions{}); err == nil {
		t.Error("a connection passes for a listener")
	}
	unixSocket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(unixSocket)
	check(t, unix.Bind(unixSocket, &unix.SockaddrUnix{}))
	check(t, unix.Listen(unixSocket, 1))
	if _, _, err := sock.UseListener(unixSocket, false, sock.ConnOptions{}); err == nil {
		t.Error("a unix socket passes for a TCP listener")
	}
}

// TestUseConnIsUndone: undo restores all options, also on a socket that blocks.
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
	undo, err := sock.UseConn(fd, sock.ConnOptions(connOptions))
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
		k    net.KeepAliveConfig
		want int
	}{
		{net.KeepAliveConfig{}, own},
		{net.KeepAliveConfig{Enable: true, Idle: time.Duration(own+1) * time.Second}, own},
		{net.KeepAliveConfig{Enable: true, Idle: time.Duration(own-1) * time.Second}, own - 1},
		{net.KeepAliveConfig{Enable: true, Idle: time.Second / 2}, 1},
		{net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: 20 * time.Second}, 20},
	} {
		check(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, own))
		check(t, sock.ConnOptions{KeepAlive: c.k}.Apply(fd))
		if got := getsockopt(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL); got != c.want {
			t.Errorf("%+v: %d s, want %d", c.k, got, c.want)
		}
	}
}
