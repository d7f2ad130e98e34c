package sock_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// TestSamplesDoNotAllocate: what the engine asks of thousands of sockets leaves no garbage. It is
// asked from another package, where the compiler inlines, and what is inlined may escape.
func TestSamplesDoNotAllocate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	info, b := new(unix.TCPInfo), make([]byte, 1)
	err = raw.Control(func(fd uintptr) {
		for name, sample := range map[string]func(fd int){
			"Memory": func(fd int) {
				m, ok := sock.Memory(fd)
				if !ok || m.ReceiveBuffer == 0 {
					t.Error("no memory is told")
				}
			},
			"TCPInfo": func(fd int) { sock.TCPInfo(fd, info) },
			"Unread":  func(fd int) { sock.Unread(fd) },
			"Unsent":  func(fd int) { sock.Unsent(fd) },
			"NotSent": func(fd int) { sock.NotSent(fd) },
			"Recv":    func(fd int) { sock.Recv(fd, b) },
			"Peek":    func(fd int) { sock.Peek(fd, b) },
			"Send":    func(fd int) { sock.Send(fd, nil, false) },
		} {
			if n := testing.AllocsPerRun(100, func() { sample(int(fd)) }); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
