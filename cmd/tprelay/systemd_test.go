package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a socket that is told what systemd would be told.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn, path}
}

// told waits for the next message; it skips those of the watchdog.
func (m *manager) told() []string {
	m.t.Helper()
	b := make([]byte, 4096)
	for {
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatal(err)
		}
		if lines := strings.Split(string(b[:n]), "\n"); lines[0] != "WATCHDOG=1" {
			return lines
		}
	}
}

// watchdog waits for a message to the watchdog.
func (m *manager) watchdog() {
	m.t.Helper()
	b := make([]byte, 4096)
	for {
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatal(err)
		}
		if string(b[:n]) == "WATCHDOG=1" {
			return
		}
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	m := newManager(t)
	server := listenHere(t)
	cmd := command(t, forwardTo(server.Addr())...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000")
	p := follow(watch(t, cmd))
	address := p.line("listening")["address"].(string)
	status := "STATUS=relaying connections to " + address
	if got, want := m.told(), []string{"READY=1", status}; !slices.Equal(got, want) {
		t.Errorf("at the start: %q, want %q", got, want)
	}
	m.watchdog()

	old := p.pid
	p.upgrade()
	got := m.told()
	if len(got) != 3 || got[0] != "RELOADING=1" || !strings.HasPrefix(got[1], "MONOTONIC_USEC=") || got[2] != "STATUS=starting the new program" {
		t.Errorf("at the upgrade: %q", got)
	}
	// The new one says that it is ready, to whom it may concern; the old one, which is the
	// one that is listened to, that the new one is the main process. In any order.
	messages := [][]string{m.told(), m.told()}
	slices.SortFunc(messages, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	if want := []string{fmt.Sprintf("MAINPID=%d", p.pid), "READY=1", status}; !slices.Equal(messages[0], want) || !slices.Equal(messages[1], []string{"READY=1", status}) {
		t.Errorf("after the upgrade of %d: %q, want %q", old, messages, want)
	}
	m.watchdog() // now from the new one: the old one has ended

	if code := p.end(); code != 0 {
		t.Errorf("status %d", code)
	}
	if got, want := m.told(), []string{"STOPPING=1", "STATUS=draining"}; !slices.Equal(got, want) {
		t.Errorf("at the end: %q, want %q", got, want)
	}
}

func TestServiceManagerIsToldOfAFailedUpgrade(t *testing.T) {
	m := newManager(t)
	program := install(t)
	cmd := program.command(forwardTo(echo(t))...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
	p := watch(t, cmd)
	p.line("listening")
	ready := m.told()
	program.replace("no program")
	p.signal(unix.SIGUSR2)
	m.told() // RELOADING
	if got := m.told(); !slices.Equal(got, ready) {
		t.Errorf("%q, want %q", got, ready)
	}
	p.signal(unix.SIGTERM)
	p.wait()
}

func TestWatchdogHearsNothingFromStuckLoops(t *testing.T) {
	var told []string
	s := tellBy(slog.New(slog.DiscardHandler), func(state string) error {
		told = append(told, state)
		return nil
	})
	s.watchdog = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	answers := []error{nil, errors.New("1 of 2 loops do not answer"), nil}
	s.watch(ctx, func(context.Context) error {
		if len(answers) == 0 {
			cancel()
			return ctx.Err()
		}
		err := answers[0]
		answers = answers[1:]
		return err
	})
	s.close(forever)
	if len(told) != 2 {
		t.Errorf("told %q", told)
	}
}

// activate is a command that gets listening sockets as systemd passes them: from
// descriptor 3 on, named in the environment. LISTEN_PID is the process's own number,
// which a shell knows before it becomes the program.
func activate(t *testing.T, cmd *exec.Cmd, names string, sockets ...*net.TCPListener) *exec.Cmd {
	t.Helper()
	sh := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)...)
	sh.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	for _, s := range sockets {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		sh.ExtraFiles = append(sh.ExtraFiles, f)
	}
	return sh
}

// TestSocketActivation: with --listen and without, and the admin end's; all of it lives
// through an upgrade, where systemd passes nothing any more.
func TestSocketActivation(t *testing.T) {
	server := listenHere(t)
	for _, named := range []bool{true, false} {
		one, two, admin := listenHere(t), listenHere(t), listenHere(t)
		args := []string{"run", "--mode", "forward", "--upstream", server.Addr().String(), "--log-format", "json", "--admin", admin.Addr().String()}
		if named {
			args = append(args, "--listen", two.Addr().String(), "--listen", one.Addr().String())
		}
		p := follow(watch(t, activate(t, command(t, args...), "one:two:admin", one, two, admin)))
		if url := p.line("admin")["url"]; url != "http://"+admin.Addr().String()+"/" {
			t.Errorf("admin at %v", url)
		}
		for n := range 2 {
			for _, l := range []*net.TCPListener{one, two} {
				client, end := pair(t, l.Addr().String(), server)
				pass(t, client, end, "hello")
				client.Close()
				end.Close()
			}
			get(t, "http://"+admin.Addr().String()+"/metrics")
			if n == 0 {
				p.upgrade()
			}
		}
		if status := p.end(); status != 0 {
			t.Errorf("status %d:\n%s", status, strings.Join(p.seen, "\n"))
		}
	}
}

func TestSocketActivationThatCannotBe(t *testing.T) {
	l := listenHere(t)
	datagrams, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	f, err := datagrams.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		args   []string
		file   *os.File
		status int
		want   string
	}{
		{forwardTo(l.Addr()), nil, 2, "tprelay: systemd passed socket web (" + l.Addr().String() + "), which no --listen names; omit --listen to use the passed sockets\n"},
		{[]string{"run", "--mode", "tproxy"}, nil, 1, "tprelay: systemd passed socket web (" + l.Addr().String() + "), which cannot accept TPROXY connections; its .socket unit needs Transparent=yes\n"},
		{[]string{"run", "--mode", "tproxy"}, f, 1, "tprelay: systemd passed web, which is not a listening TCP socket; its .socket unit needs ListenStream=ADDR:PORT\n"},
	} {
		cmd := activate(t, command(t, c.args...), "web", l)
		if c.file != nil {
			cmd.ExtraFiles = []*os.File{c.file}
		}
		if status, _, stderr := run(t, cmd); status != c.status || stderr != c.want {
			t.Errorf("%q: status %d, %q, want %q", c.args, status, stderr, c.want)
		}
	}
}

// TestSystemdSocketActivate: as systemd itself does it.
func TestSystemdSocketActivate(t *testing.T) {
	path, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("needs systemd-socket-activate")
	}
	free := listenHere(t)
	address := free.Addr().String()
	free.Close()
	server := listenHere(t)
	program := command(t, "run", "--mode", "forward", "--upstream", server.Addr().String(), "--log-format", "json")
	args := []string{"--listen", address, "--setenv", argsVariable, program.Path}
	cmd := exec.Command(path, append(args, program.Args[1:]...)...)
	cmd.Env = program.Env
	p := watch(t, cmd)
	var client net.Conn
	for end := time.Now().Add(time.Minute); client == nil && time.Now().Before(end); { // until it listens
		client, _ = net.Dial("tcp4", address)
	}
	if client == nil {
		t.Fatal("it does not listen")
	}
	defer client.Close()
	if got := p.line("listening")["address"]; got != netip.MustParseAddrPort(address).String() {
		t.Errorf("listening on %v", got)
	}
	end, err := server.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	pass(t, client, end, "hello")
	client.Close()
	end.Close()
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("status %d: %s", status, strings.Join(p.seen, "\n"))
	}
}
