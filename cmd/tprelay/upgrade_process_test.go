package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// installed is the program in a file of its own, as an operator has it.
type installed struct {
	t    *testing.T
	path string
}

func install(t *testing.T) installed { return installed{t, copyOfProgram(t)} }

// command is the program with args, started by its path.
func (i installed) command(args ...string) *exec.Cmd {
	cmd := command(i.t, args...)
	cmd.Path, cmd.Args[0] = i.path, i.path
	return cmd
}

// replace puts another file in the program's place, as package managers do.
func (i installed) replace(content string) {
	i.t.Helper()
	next := i.path + ".new"
	if err := os.WriteFile(next, []byte(content), 0o755); err != nil {
		i.t.Fatal(err)
	}
	if err := os.Rename(next, i.path); err != nil {
		i.t.Fatal(err)
	}
}

// TestUpgradeThatFailsChangesNothing: whatever stands where the program was.
func TestUpgradeThatFailsChangesNothing(t *testing.T) {
	program := install(t)
	good, err := os.ReadFile(program.path)
	if err != nil {
		t.Fatal(err)
	}
	server := listenHere(t)
	p := follow(watch(t, program.command(forwardTo(server.Addr(), "--upgrade-timeout", "5s", "--admin", "127.0.0.1:0")...)))
	url := p.line("admin")["url"].(string)
	address := p.line("listening")["address"]
	client, end := pair(t, address, server)
	for _, c := range []struct{ what, content, want string }{
		{"exits with 1", "#!/bin/sh\nexit 1\n", program.path + " ended before it had taken over: exit status 1 ("},
		{"ends by a signal", "#!/bin/sh\nkill -9 $$\n", program.path + " ended before it had taken over: signal: killed ("},
		{"hangs", "#!/bin/sh\nexec sleep 1000\n", program.path + " has not taken over within 5s and was ended; see --upgrade-timeout"},
		{"speaks otherwise", "#!/bin/sh\nprintf 'hello, it is me' >&3\nexec sleep 1000\n", program.path + " could not take over and was ended: "},
		{"is no program", "no program\n", "start " + program.path + ": exec format error"},
	} {
		program.replace(c.content)
		p.kill(unix.SIGUSR2)
		if why := p.line("upgrade failed; this process goes on")["err"].(string); !strings.HasPrefix(why, c.want) {
			t.Errorf("%s: %s, want %s", c.what, why, c.want)
		}
		pass(t, client, end, c.what)
		pass(t, end, client, c.what)
		a, b := pair(t, address, server)
		pass(t, a, b, "new")
		a.Close()
		b.Close()
		get(t, url+"metrics")
		if children := childrenOf(t, p.pid); children != "" {
			t.Errorf("%s: processes are left: %s", c.what, children)
		}
	}
	program.replace(string(good))
	p.upgrade()
	pass(t, client, end, "after all")
	client.CloseWrite()
	end.CloseWrite()
	if status := p.end(); status != 0 {
		t.Errorf("status %d:\n%s", status, strings.Join(p.seen, "\n"))
	}
}

// childrenOf lists the children of a process.
func childrenOf(t *testing.T, pid int) string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, path := range paths {
		text, _ := os.ReadFile(path) // the process may have ended
		_, rest, ok := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); ok && fields[1] == strconv.Itoa(pid) {
			children = append(children, string(text))
		}
	}
	return strings.Join(children, "")
}

// TestSignalsDuringAnUpgrade: a second SIGUSR2 is ignored; SIGTERM waits, and the old
// process obeys it when the new one never came.
func TestSignalsDuringAnUpgrade(t *testing.T) {
	program := install(t)
	server := listenHere(t)
	p := watch(t, program.command(forwardTo(server.Addr(), "--upgrade-timeout", "3s")...))
	address := p.line("listening")["address"]
	client, end := pair(t, address, server)
	program.replace("#!/bin/sh\nexec sleep 1000\n")
	p.signal(unix.SIGUSR2)
	p.line("upgrade: starting the new program")
	p.signal(unix.SIGUSR2)
	p.line("SIGUSR2 ignored: an upgrade is in progress")
	p.signal(unix.SIGTERM)
	p.line("signal deferred until the upgrade is done")
	p.line("upgrade failed; this process goes on")
	p.line("draining")
	p.signal(unix.SIGUSR2)
	p.line("SIGUSR2 ignored: this process is shutting down")
	pass(t, client, end, "still there")
	client.CloseWrite()
	end.CloseWrite()
	if status := p.wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.last())
	}
}

// TestSecondSignalEndsAHangingUpgrade, and the program that hangs.
func TestSecondSignalEndsAHangingUpgrade(t *testing.T) {
	program := install(t)
	server := listenHere(t)
	p := watch(t, program.command(forwardTo(server.Addr(), "--upgrade-timeout", "1h")...))
	p.line("listening")
	program.replace("#!/bin/sh\nexec sleep 1000\n")
	p.signal(unix.SIGUSR2)
	p.line("upgrade: starting the new program")
	p.signal(unix.SIGTERM)
	p.line("signal deferred until the upgrade is done")
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != 1 || p.last() != "tprelay: "+errForced.Error() { // the end of stderr: the other has gone too
		t.Errorf("status %d: %s", status, p.last())
	}
}

// TestPairsWithHandlersStayAndDrain: what a handler knows cannot be handed over.
func TestPairsWithHandlersStayAndDrain(t *testing.T) {
	server := listenHere(t)
	p := follow(watch(t, command(t, forwardTo(server.Addr(), "--intercept", "replace=cat:dog")...)))
	address := p.line("listening")["address"]
	client, end := pair(t, address, server)
	pass(t, client, end, "hello")
	old := p.pid
	p.kill(unix.SIGUSR2)
	said := p.all("upgraded", "took over")
	if said["upgraded"]["pairs_left"] != 1.0 || said["took over"]["pairs"] != 0.0 {
		t.Errorf("%v", said)
	}
	p.pid = int(said["upgraded"]["new_pid"].(float64))
	if err := unix.Kill(old, unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	p.line("SIGUSR2 ignored: this process is shutting down")
	for _, ends := range [][2]*net.TCPConn{{client, end}, {end, client}} {
		pass(t, ends[0], ends[1], "still there")
	}
	a, b := pair(t, address, server) // goes to the new one
	pass(t, a, b, "new")
	client.CloseWrite()
	end.CloseWrite()
	if status := p.reap(old); status != 0 {
		t.Errorf("the old one: status %d", status)
	}
	pass(t, b, a, "new")
	a.CloseWrite()
	b.CloseWrite()
	if status := p.end(); status != 0 {
		t.Errorf("the new one: status %d", status)
	}
}

// TestUpgradeKeepsUserAndPrivileges: what the first process chose, the next ones keep.
func TestUpgradeKeepsUserAndPrivileges(t *testing.T) {
	needRoot(t)
	program := install(t)
	server := listenHere(t)
	for _, c := range []struct {
		args []string
		caps string
	}{
		{[]string{"--user", "nobody", "--mark", "7", "--listen", "127.0.0.1:878"}, capsAdmin},
		{[]string{"--mark", "7"}, capsAdmin}, // root
		{nil, capsNone},
	} {
		p := follow(watch(t, program.command(forwardTo(server.Addr(), c.args...)...)))
		address := p.line("listening")["address"]
		client, end := pair(t, address, server)
		for range 2 {
			p.upgrade()
			pass(t, client, end, "still there")
			a, b := pair(t, address, server)
			pass(t, a, b, "new")
			want := confined(c.caps)
			if len(c.args) > 2 {
				want["Uid"], want["Gid"], want["Groups"] = "65534 65534 65534 65534", "65534 65534 65534 65534", "65534"
			}
			checkThreads(t, p.pid, want)
			a.Close()
			b.Close()
		}
		client.CloseWrite()
		end.CloseWrite()
		if status := p.end(); status != 0 {
			t.Errorf("%q: status %d:\n%s", c.args, status, strings.Join(p.seen, "\n"))
		}
	}
}
