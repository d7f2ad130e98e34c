package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lineage is a process and those that replace it, one after the other. All log to the
// same pipe.
type lineage struct {
	*process
	pid int // of the one that serves
}

// follow makes the test the parent of every process that loses its own, so that it
// learns how each ended.
func follow(p *process) *lineage {
	p.t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		p.t.Fatal(err)
	}
	l := &lineage{process: p, pid: p.cmd.Process.Pid}
	p.t.Cleanup(func() {
		if l.pid != 0 {
			unix.Kill(l.pid, unix.SIGKILL)
			unix.Wait4(l.pid, nil, 0, nil)
		}
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
	return l
}

// all waits for lines with these messages, in whatever order two processes say them.
func (p *process) all(messages ...string) map[string]map[string]any {
	p.t.Helper()
	found := map[string]map[string]any{}
	for len(found) < len(messages) && p.stderr.Scan() {
		p.seen = append(p.seen, p.stderr.Text())
		fields := map[string]any{}
		if json.Unmarshal(p.stderr.Bytes(), &fields) != nil {
			continue
		}
		for _, m := range messages {
			if strings.HasPrefix(fields["msg"].(string), m) {
				found[m] = fields
			}
			if fields["level"] == "ERROR" {
				p.t.Fatalf("waiting for %q:\n%s", messages, strings.Join(p.seen, "\n"))
			}
		}
	}
	if len(found) < len(messages) {
		p.t.Fatalf("not all of %q in the log:\n%s", messages, strings.Join(p.seen, "\n"))
	}
	return found
}

// reap waits for a process and returns its exit status.
func (l *lineage) reap(pid int) int {
	l.t.Helper()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			l.t.Fatalf("wait for %d: %v", pid, err)
		}
		return status.ExitStatus()
	}
}

func (l *lineage) kill(s unix.Signal) {
	l.t.Helper()
	if err := unix.Kill(l.pid, s); err != nil {
		l.t.Fatal(err)
	}
}

// upgrade has the process replaced, and waits until the old one has ended.
func (l *lineage) upgrade() map[string]any {
	l.t.Helper()
	l.kill(unix.SIGUSR2)
	upgraded := l.all("upgraded", "took over")["upgraded"]
	old := l.pid
	l.pid = int(upgraded["new_pid"].(float64))
	if status := l.reap(old); status != 0 {
		l.t.Fatalf("the old process ended with status %d:\n%s", status, strings.Join(l.seen, "\n"))
	}
	return upgraded
}

// end ends the one that serves, and returns its exit status.
func (l *lineage) end() int {
	l.t.Helper()
	l.kill(unix.SIGTERM)
	for l.stderr.Scan() {
		l.seen = append(l.seen, l.stderr.Text())
	}
	status := l.reap(l.pid)
	l.pid = 0
	return status
}

// listenHere is a server whose connections the test accepts itself.
func listenHere(t *testing.T) *net.TCPListener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false) // systemd's sockets are not, unless asked for
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// pair opens a connection through the relay and gives both ends.
func pair(t *testing.T, address any, l *net.TCPListener) (client, server *net.TCPConn) {
	t.Helper()
	client = dial(t, address)
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// pass sends text from one end to the other.
func pass(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("sent %q, got %q: %v", text, got, err)
	}
}
