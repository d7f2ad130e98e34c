package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/cli"
)

func dial(t *testing.T, address any) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", address.(string))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// say sends text to an echo and reads it back.
func say(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("sent %q, got %q: %v", text, got, err)
	}
}

// transfer sends data to an echo, and ends both ways.
func transfer(t *testing.T, c *net.TCPConn, data []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	c.Close()
}

func TestProcessDrainsOnSIGTERM(t *testing.T) {
	access := filepath.Join(t.TempDir(), "access.log")
	p := start(t, echo(t), "--access-log", access, "--loops", "1", "--intercept", "replace=x:y")
	address := p.line("listening")["address"]
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	transfer(t, dial(t, address), data)

	open := dial(t, address)
	say(t, open, "before")
	p.signal(unix.SIGTERM)
	p.line("draining")
	say(t, open, "while draining")
	transfer(t, open, data)

	sum := p.line("ended")
	if status := p.wait(); status != cli.OK {
		t.Errorf("exit status %d:\n%s", status, strings.Join(p.seen, "\n"))
	}
	total := float64(2*len(data) + len("before") + len("while draining"))
	if sum["pairs"] != 2.0 || sum["opened"] != 2.0 || sum["upstream_bytes"] != total || sum["downstream_bytes"] != total {
		t.Errorf("summary: %v, want %v bytes", sum, total)
	}
	var bytes float64
	for _, text := range lines(t, access) {
		var line struct {
			Reason   string
			Up, Down struct {
				Bytes float64
				Path  string
			}
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if line.Reason != "eof" || line.Up.Path != "buffer" || line.Up.Bytes != line.Down.Bytes {
			t.Errorf("access log: %s", text)
		}
		bytes += line.Up.Bytes
	}
	if bytes != total {
		t.Errorf("access log: %v bytes, want %v", bytes, total)
	}
}

func TestProcessResetsWhatOutlivesDraining(t *testing.T) {
	p := start(t, echo(t), "--drain-timeout", "0")
	c := dial(t, p.line("listening")["address"])
	say(t, c, "hello")
	p.signal(unix.SIGINT)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client read: %v", err)
	}
	p.line("connections were reset at the end of draining")
	if status := p.wait(); status != cli.OK {
		t.Errorf("exit status %d", status)
	}
}

func TestProcessEndsAtOnceOnSecondSignal(t *testing.T) {
	p := start(t, echo(t), "--drain-timeout", "1h")
	c := dial(t, p.line("listening")["address"])
	say(t, c, "hello")
	p.signal(unix.SIGTERM)
	p.line("draining")
	p.signal(unix.SIGTERM)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client read: %v", err)
	}
	if status := p.wait(); status != cli.Failure || p.last() != "tprelay: "+errForced.Error() {
		t.Errorf("exit status %d, %s", status, p.last())
	}
}

func TestProcessReopensAccessLogOnSIGHUP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	p := start(t, echo(t), "--access-log", path)
	address := p.line("listening")["address"]
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	p.signal(unix.SIGHUP)
	p.line("access log reopened")
	transfer(t, dial(t, address), []byte("hello"))
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != cli.OK || len(lines(t, path)) != 1 || lines(t, path)[0] == "" {
		t.Errorf("exit status %d, access log %q", status, lines(t, path))
	}
}

func TestProcessSurvivesAccessLogReaderThatGoes(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startWith(t, writer, echo(t), "--access-log", "-")
	reader.Close()
	writer.Close()
	address := p.line("listening")["address"]
	transfer(t, dial(t, address), []byte("hello"))
	p.line("access log: lines are lost")
	transfer(t, dial(t, address), []byte("still there"))
	p.signal(unix.SIGTERM)
	if n := p.line("access log is incomplete")["dropped"]; n != 2.0 {
		t.Errorf("%v lines dropped", n)
	}
	if status := p.wait(); status != cli.OK {
		t.Errorf("exit status %d", status)
	}
}
