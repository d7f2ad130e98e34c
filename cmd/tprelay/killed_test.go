package main

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKilledRelayResetsBothEnds: kill -9 leaves no time for anything, and still neither end
// may take what was cut off for a clean end. (The kernel sends a FIN for a process
// that dies, unless the socket was told otherwise before.)
func TestKilledRelayResetsBothEnds(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p := start(t, server.Addr())
	client := dial(t, p.line("listening")["address"])
	accepted, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for _, way := range [][2]net.Conn{{client, accepted}, {accepted, client}} {
		if _, err := way[0].Write([]byte("the first half")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way[1], make([]byte, len("the first half"))); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(unix.SIGKILL)
	p.wait()
	for who, c := range map[string]net.Conn{"client": client, "server": accepted} {
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: %d bytes, %v; want a reset", who, n, err)
		}
	}
}
