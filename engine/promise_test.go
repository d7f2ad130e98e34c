package engine

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestWhatWasPromisedIsTaken: a reader stops while a sender is at full speed, and the window is
// held, with and without the right to make receive buffers as large as need be. Nothing is dropped
// of what is on its way, nor of the rest of the window that the sender uses when it has waited
// for some time. (It would be sent again after a time-out only, which doubles as long as the reader
// stands still and is not over when it goes on.)
func TestWhatWasPromisedIsTaken(t *testing.T) {
	for name, most := range map[string]int64{"any size": 0, "up to 4 MiB": 4 << 20, "up to 256 KiB": 256 << 10} {
		for range 2 {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				out, in := connected(t)
				sent := make(chan error, 1)
				go func() {
					_, err := out.Write(make([]byte, 256<<20)) // more than the buffers take
					sent <- err
				}()
				if _, err := io.CopyN(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, 64<<20); err != nil {
					t.Fatal(err)
				}
				l := loop{mostBuffer: most}
				for i := range int64(20) {
					control(t, in, func(fd int) {
						if l.tcpInfo(fd) {
							// As when the rate was measured, and then there is none.
							l.holdWindow(fd, leastSegments*int64(l.tcp.Advmss), 0, max(5-i, 0))
						}
					})
					time.Sleep(tickLength)
				}
				control(t, out, func(fd int) {
					if !l.tcpInfo(fd) || l.tcp.Lost > 0 {
						t.Errorf("%d segments were lost: %+v", l.tcp.Lost, l.tcp)
					}
				})
				in.Close()
				<-sent
			})
		}
	}
}

func control(t *testing.T, c *net.TCPConn, f func(fd int)) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}
