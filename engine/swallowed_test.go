package engine

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
)

// TestResetThatAWriteSwallowedIsNoFIN: a splice(2) that is reset after it has moved
// something says how much, and keeps the error to itself. No event tells of it then, and
// reads say 0. The other side must not be sent a FIN for that.
func TestResetThatAWriteSwallowedIsNoFIN(t *testing.T) {
	l := oneLoop(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := l.pairs.take()
	p.state = stateOpen
	l.engine.active.Add(1)
	var others [2]net.Conn
	for s := range side(2) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.fd[s] = int32(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		if others[s], err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		defer others[s].Close()
	}
	others[incoming].(*net.TCPConn).SetLinger(0)
	others[incoming].Close()
	fd := p.fd[incoming]
	if _, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, 10_000); err != nil {
		t.Fatal(err)
	}
	if err := sock.Error(int(fd)); err != unix.ECONNRESET { // this is what the write does
		t.Fatalf("the client's end: %v", err)
	}
	p.dir[upstream].Set(pump.Readable | pump.Writable)
	p.dir[downstream].Set(pump.Writable)
	l.service(p)
	if p.state != stateFree || l.count.ended[ReasonReset] != 1 {
		t.Errorf("state %d, FIN passed on: %v, ended %v", p.state, p.dir[upstream].Is(pump.FINSent), l.count.ended)
	}
	if _, err := others[outgoing].Read(make([]byte, 1)); err == nil || err.Error() == "EOF" {
		t.Errorf("the server read %v, want a reset", err)
	}
}
