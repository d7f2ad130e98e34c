package main

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// reasons are those in an access log, sorted: the loops write in any order.
func reasons(t *testing.T, path string) string {
	t.Helper()
	var all []string
	for _, text := range lines(t, path) {
		var line struct{ Reason string }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, line.Reason)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// resetOnOpening fails unless the relay resets a new connection.
func resetOnOpening(t *testing.T, address any) {
	t.Helper()
	c, err := net.Dial("tcp4", address.(string))
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees: %v", err)
	}
}

func TestProcessDeniesDestinations(t *testing.T) {
	server := listenHere(t)
	log := filepath.Join(t.TempDir(), "access.log")
	p := start(t, server.Addr(), "--deny", "10.0.0.0/8", "--deny", "127.0.0.1", "--access-log", log)
	resetOnOpening(t, p.line("listening")["address"])
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != 0 || reasons(t, log) != "denied" {
		t.Errorf("status %d, reasons %s", status, reasons(t, log))
	}
}

func TestProcessLimitsPairsOfOneSource(t *testing.T) {
	server := listenHere(t)
	log := filepath.Join(t.TempDir(), "access.log")
	p := start(t, server.Addr(), "--max-pairs-per-source", "2", "--access-log", log)
	address := p.line("listening")["address"]
	a, endOfA := pair(t, address, server)
	b, endOfB := pair(t, address, server)
	resetOnOpening(t, address)
	for _, c := range []*net.TCPConn{a, endOfA, b, endOfB} {
		c.CloseWrite()
	}
	p.signal(unix.SIGTERM)
	if status := p.wait(); status != 0 || reasons(t, log) != "eof eof source-limit" {
		t.Errorf("status %d, reasons %s", status, reasons(t, log))
	}
}

func TestSIGTERMClosesListenersThenWaitsThenResets(t *testing.T) {
	server := listenHere(t)
	log := filepath.Join(t.TempDir(), "access.log")
	p := start(t, server.Addr(), "--drain-timeout", "3s", "--access-log", log)
	address := p.line("listening")["address"]
	ends, endsToo := pair(t, address, server)
	stays, staysToo := pair(t, address, server)
	p.signal(unix.SIGTERM)
	p.line("draining")
	for { // closed first
		c, err := net.Dial("tcp4", address.(string))
		if errors.Is(err, unix.ECONNREFUSED) {
			break
		}
		if err == nil { // it came before the listener was closed
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		} else if !errors.Is(err, unix.ECONNRESET) { // as it was closed
			t.Fatal(err)
		}
	}
	pass(t, ends, endsToo, "hello") // then what is open goes on
	pass(t, stays, staysToo, "hello")
	ends.CloseWrite()
	endsToo.CloseWrite()
	for _, c := range []*net.TCPConn{stays, staysToo} { // what has not ended by itself is reset
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
	}
	status := p.wait()
	if all := reasons(t, log); status != 0 || strings.Count(all, "eof") != 1 || strings.Count(all, "drained") != 1 {
		t.Errorf("status %d, reasons %s", status, all)
	}
}
