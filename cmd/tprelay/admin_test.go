package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/admin"
	"github.com/tprelay/tprelay/engine"
)

func TestAdminFlag(t *testing.T) {
	var a adminFlag
	if err := a.UnmarshalText([]byte("127.0.0.1:9092")); err != nil || a.String() != "127.0.0.1:9092" {
		t.Errorf("%v, %v", a, err)
	}
	for _, bad := range []string{":9092", "localhost:9092", "9092", "127.0.0.1"} {
		if err := a.UnmarshalText([]byte(bad)); err == nil || !strings.Contains(err.Error(), "want ADDR:PORT") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAdminShowsTheRelay(t *testing.T) {
	relay, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	var lines strings.Builder
	log := slog.New(slog.NewTextHandler(&lines, nil))
	end, err := adminFlag{netip.MustParseAddrPort("127.0.0.1:0")}.serve(relay, 0, admin.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	_, url, ok := strings.Cut(lines.String(), "url=")
	if !ok {
		t.Fatal(lines.String())
	}
	url = strings.TrimSpace(url)
	r, err := http.Get(url + "metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if !strings.Contains(string(body), "\ntprelay_pairs 0\n") {
		t.Errorf("%s: %s", r.Status, body)
	}
	end.stop()
	if _, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")); err == nil {
		t.Error("still there after stop")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAdminPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = adminFlag{l.Addr().(*net.TCPAddr).AddrPort()}.serve(nil, 0, admin.Options{})
	if err == nil || !strings.Contains(err.Error(), "address already in use; choose another port") {
		t.Error(err)
	}
	end, err := adminFlag{}.serve(nil, 0, admin.Options{})
	if err != nil || end != nil {
		t.Fatal(end, err)
	}
	end.stop() // does nothing
}

// TestIdleAdminClientsLeaveDescriptorsToTheRelay: more of them than the process may have
// descriptors.
func TestIdleAdminClientsLeaveDescriptorsToTheRelay(t *testing.T) {
	cmd := command(t, forwardTo(echo(t), "--admin", "127.0.0.1:0")...)
	sh := exec.Command("/bin/sh", append([]string{"-c", `ulimit -n 256; exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)...)
	sh.Env = cmd.Env
	p := watch(t, sh)
	url := p.line("admin")["url"].(string)
	address := p.line("listening")["address"]
	for range 400 {
		c := dial(t, strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/"))
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		c := dial(t, address)
		c.SetDeadline(time.Now().Add(patience))
		say(t, c, "hello")
	}
	if text := get(t, url+"metrics"); !strings.Contains(text, "\ntprelay_log_dropped_lines_total 0\n") {
		t.Errorf("no number of dropped log lines in\n%s", text)
	}
	p.signal(unix.SIGTERM)
	p.line("draining")
	p.signal(unix.SIGTERM)
	p.wait()
}

func TestAdminHostIsAnswered(t *testing.T) {
	p := start(t, echo(t), "--admin", "127.0.0.1:0", "--admin-host", "gateway.example")
	url := p.line("admin")["url"].(string)
	for host, status := range map[string]int{"gateway.example": 200, "other.example": 421} {
		r, err := http.NewRequest("GET", url+"healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != status {
			t.Errorf("%s: %s, want %d", host, answer.Status, status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	p.signal(unix.SIGTERM)
	p.wait()
}
