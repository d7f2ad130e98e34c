package relays_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

const (
	relayPort  = 9091
	serverPort = 5201
	mebibyte   = 1 << 20
)

// shared is where the programs are that tests build.
const shared = "RELAYS_TEST_SHARED"

func TestMain(m *testing.M) {
	if err := netlab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "relays-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(shared, dir)
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// program builds a command of this module, once.
func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv(shared), name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	out, err := exec.Command("go", "build", "-o", path, "github.com/tprelay/tprelay/cmd/"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// environment is a lab for relays.
func environment(t *testing.T) relays.Env {
	t.Helper()
	lab := netlabtest.New(t, netlab.Config{})
	settle(t, lab)
	return relays.Env{
		Lab:     lab,
		Self:    program(t, "tpbench"),
		TPRelay: program(t, "tprelay"),
		Listen:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), relayPort),
		Server:  netip.AddrPortFrom(lab.H3.Addr4, serverPort),
	}
}

// settle waits until the kernel has made the routes of h2's two links, which takes it some time
// after these are up: the last are those of their link-local addresses.
func settle(t *testing.T, lab *netlab.Lab) {
	t.Helper()
	ctx := within(t)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		out, err := lab.H2.Command(ctx, "ip", "route", "show", "table", "all").Output()
		if err != nil {
			t.Fatal(err)
		}
		routes := string(out)
		if !strings.Contains(routes, "linkdown") && strings.Count(routes, "local fe80:") == 2 && strings.Count(routes, "anycast fe80:") == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("links of h2 are not up:\n%s", routes)
		}
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// find gives an installed relay.
func find(t *testing.T, name, command string) relays.Relay {
	t.Helper()
	p, err := relays.Find(name, command)
	if err != nil {
		t.Fatal(err)
	}
	if missing := p.Missing(); missing != "" {
		t.Skip(missing)
	}
	return p
}

// start starts a relay, which the test stops if it does not do so itself.
func start(t *testing.T, p relays.Relay, env relays.Env) *relays.Running {
	t.Helper()
	r, err := p.Start(within(t), env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	return r
}

// next is the same address with the next port.
func next(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

// echo serves one connection on h3 and sends back what comes; saw gives who came.
func echo(t *testing.T, env relays.Env, at netip.AddrPort) (saw <-chan netip.AddrPort) {
	t.Helper()
	l, err := env.Lab.H3.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan netip.AddrPort, 1)
	go func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		came <- c.RemoteAddr().(*net.TCPAddr).AddrPort()
		_, _ = io.Copy(c, c)
	}()
	t.Cleanup(func() { l.Close() })
	return came
}

// exchange connects from h1, sends a mebibyte and wants it back.
func exchange(env relays.Env, to netip.AddrPort) (client netip.AddrPort, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := env.Lab.H1.Dial(ctx, "tcp", to.String())
	if err != nil {
		return client, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	want := make([]byte, mebibyte)
	rand.NewChaCha8([32]byte{1}).Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	got := make([]byte, mebibyte)
	_, err = io.ReadFull(c, got)
	if err = errors.Join(err, <-sent); err == nil && !bytes.Equal(got, want) {
		err = errors.New("other bytes came back")
	}
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), err
}
