package relays_test

import (
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
)

// TestEveryPeerServesBothPorts also holds that the server sees the client where a
// relay says so, and that stopping it leaves nothing.
func TestEveryPeerServesBothPorts(t *testing.T) {
	for _, p := range relays.All("") {
		t.Run(p.Name, func(t *testing.T) {
			leak.Check(t)
			env, p := environment(t), find(t, p.Name, "")
			before := state(t, env)
			r := start(t, p, env)
			serves(t, env, p, r)
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			pids := r.PIDs()
			if (len(pids) == 0) != (p.Way == relays.Direct) {
				t.Errorf("processes %v", pids)
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			if pids := r.PIDs(); len(pids) > 0 {
				t.Errorf("processes %v are left", pids)
			}
			gone(t, pids)
			if after := state(t, env); after != before {
				t.Errorf("h2 before:\n%s\nafter:\n%s", before, after)
			}
			t.Logf("%s (%v)", p.Title, p.Way)
		})
	}
}

// serves holds that the relay passes bytes on both ways, on both ports.
func serves(t *testing.T, env relays.Env, p relays.Relay, r *relays.Running) {
	t.Helper()
	server, target := env.Server, r.Target()
	for range 2 {
		saw := echo(t, env, server)
		client, err := exchange(env, target)
		if err != nil {
			t.Fatalf("%v: %v", target, err)
		}
		want := client.Addr()
		if p.Way == relays.Forward || p.Way == relays.Redirect {
			want = env.Lab.H2.Iface(netlab.Right).Addr4
		}
		if got := <-saw; got.Addr() != want || (want == client.Addr() && got != client) {
			t.Errorf("%v: the server saw %v, the client is %v", target, got, client)
		}
		server, target = next(server), next(target)
	}
}

// state is what a relay might leave on h2: rules, routing, kernel settings, files.
func state(t *testing.T, env relays.Env) string {
	t.Helper()
	dir, err := env.Lab.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	out, err := env.Lab.H2.Command(within(t), "sh", "-c",
		"nft list ruleset; ip rule; ip route show table all; cat /proc/sys/net/ipv4/tcp_tw_reuse /proc/sys/net/ipv4/ip_local_port_range; ls "+dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// gone waits until these processes have ended.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var left []string
		for _, pid := range pids {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if err == nil && !strings.Contains(string(b), ") Z ") {
				left = append(left, string(b))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %q", left)
		}
	}
}

func TestStoppingResetsOpenConnections(t *testing.T) {
	for _, p := range relays.All("") {
		if p.Way == relays.Direct {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			leak.Check(t)
			env, p := environment(t), find(t, p.Name, "")
			r := start(t, p, env)
			saw := echo(t, env, env.Server)
			c, err := env.Lab.H1.Dial(within(t), "tcp", r.Target().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			<-saw
			pids := r.PIDs()
			if p.Name == "socat" && len(pids) != 3 {
				t.Errorf("processes %v; want one for each port and one for the connection", pids)
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			gone(t, pids)
		})
	}
}

// gnet is not among them: it closes a connection on its first FIN.
func TestHalfCloseIsPassedOn(t *testing.T) {
	for _, name := range []string{"direct", "tprelay", "tprelay-buffered", "haproxy", "haproxy-batch", "haproxy-copy", "iocopy", "iocopy-nosplice", "socat", "tokenbucket"} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			env, p := environment(t), find(t, name, "")
			r := start(t, p, env)
			l, err := env.Lab.H3.Listen("tcp", env.Server.String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					served <- err
					return
				}
				defer c.Close()
				got, err := io.ReadAll(c)
				if err == nil {
					_, err = c.Write(got)
				}
				served <- err
			}()
			c, err := env.Lab.H1.Dial(within(t), "tcp", r.Target().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(make([]byte, mebibyte)); err != nil {
				t.Fatal(err)
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || len(got) != mebibyte {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSeveralProcessesShareThePort(t *testing.T) {
	for _, name := range []string{"tprelay", "haproxy", "iocopy", "gnet"} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			env, p := environment(t), find(t, name, "")
			env.Processes = 3
			if p.Way == relays.Forward {
				if _, err := p.Start(within(t), env); err == nil || !strings.Contains(err.Error(), "share its port") {
					t.Errorf("error %v", err)
				}
				return
			}
			r := start(t, p, env)
			if pids := r.PIDs(); len(pids) != 3 {
				t.Errorf("processes %v", pids)
			}
			serves(t, env, p, r)
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnknownPeerIsRefusedWithTheNamesThereAre(t *testing.T) {
	_, err := relays.Find("nginx", "")
	if err == nil || !strings.Contains(err.Error(), "haproxy-2threads") {
		t.Errorf("error %v", err)
	}
	if _, err := relays.Find("command", ""); err == nil || !strings.Contains(err.Error(), "--relay-command") {
		t.Errorf("error %v", err)
	}
}

func TestPeersSayWhatTheyAre(t *testing.T) {
	names := map[string]bool{}
	for _, p := range relays.All("my relay") {
		if p.Name == "" || p.Title == "" || p.Advice == "" || names[p.Name] {
			t.Errorf("%+v", p)
		}
		names[p.Name] = true
	}
	if !names["command"] {
		t.Error("the command is left out")
	}
}
