package engine

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/flowcontrol"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/sock"
)

// TestThrottleStaysWithinTCPRmem: whatever the sink delivers, the throttle does not make a receive
// buffer larger than the kernel's own tuning may (net.ipv4.tcp_rmem[2]).
func TestThrottleStaysWithinTCPRmem(t *testing.T) {
	_, in := connected(t)
	l := loop{tuned: 512 << 10}
	control(t, in, func(source int) {
		if !sock.TCPInfo(source, &l.source) {
			t.Fatal("no TCP_INFO")
		}
		before, _ := l.receiveBuffer(source)
		for _, window := range []int64{64 << 10, 256 << 10, 257 << 10, 16 << 20} {
			l.holdWindow(source, flowcontrol.Limits{Window: window})
			if b, ok := l.receiveBuffer(source); !ok || b.Size > max(before.Size, l.tuned) {
				t.Errorf("window of %d bytes: the buffer has %d bytes, of at most %d", window, b.Size, l.tuned)
			}
		}
	})
}

// TestWindowIsGivenBack: after a throttle the receive buffer is as large as the kernel's
// tuning had made it, and tuned again. (Left small it would stay so: the tuning enlarges it
// only when more comes in a round trip than ever before.)
func TestWindowIsGivenBack(t *testing.T) {
	out, in := connected(t)
	// Some megabytes, so that it is tuned.
	const much = 64 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := out.Write(make([]byte, much))
		sent <- err
	}()
	buf := make([]byte, 1<<20)
	for n := 0; n < much; {
		k, err := in.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var l loop
	control(t, in, func(source int) {
		size := func() int64 {
			n, err := unix.GetsockoptInt(source, unix.SOL_SOCKET, unix.SO_RCVBUF)
			if err != nil {
				t.Error(err)
			}
			return int64(n) / 2
		}
		const window = 64 << 10
		tuned := size()
		for range 3 { // nothing is promised, or it shrinks with what is
			if sock.TCPInfo(source, &l.source) {
				l.holdWindow(source, flowcontrol.Limits{Window: window})
			}
		}
		held := size()
		l.freeWindow(source)
		given := size()
		t.Logf("tuned %d, held %d, given back %d bytes; most in a round trip %d", tuned, held, given, l.source.Rcv_space)
		if held > tuned {
			t.Errorf("held at %d, was %d", held, tuned)
		}
		if want := min(2*int64(l.source.Rcv_space), 200<<10); given < want { // the least net.core.rmem_max that is common
			t.Errorf("given back %d bytes, want %d", given, want)
		}
		if given < held {
			t.Errorf("given back %d bytes, was held at %d", given, held)
		}
		if locked, err := unix.GetsockoptInt(source, unix.SOL_SOCKET, unix.SO_BUF_LOCK); err == nil && locked&unix.SOCK_RCVBUF_LOCK != 0 {
			t.Error("the kernel does not tune it any more")
		}
	})
}

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
						if sock.TCPInfo(fd, &l.source) {
							// As when the rate was measured, and then there is none.
							l.holdWindow(fd, flowcontrol.Limits{Window: 4 * int64(l.source.Advmss), Drained: max(5-i, 0)})
						}
					})
					time.Sleep(tickLength) // the throttle looks once per tick
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

// TestHeldWindowIsTwoSegmentsAtLeast: whatever the throttle asks for, and in whatever order, the
// kernel may offer two segments as soon as the relay has read what is there. (It raises
// rcv_ssthresh, which a clamp lowers, only when data comes: a window that was less than a segment
// once brings none.)
func TestHeldWindowIsTwoSegmentsAtLeast(t *testing.T) {
	for _, limit := range []string{"65536", "262144", "6291456"} {
		t.Run(limit, func(t *testing.T) {
			PrivateNetwork(t, map[string]string{"tcp_rmem": "4096 65536 " + limit})
			out, in := connected(t)
			sent := make(chan error, 1)
			go func() {
				data := make([]byte, 64<<10)
				for err := error(nil); ; { // until the other end is closed
					if _, err = out.Write(data); err != nil {
						sent <- err
						return
					}
				}
			}()
			var l loop
			random := rand.New(rand.NewPCG(1, 2))
			buf := make([]byte, 128<<10)
			for range 500 {
				control(t, in, func(fd int) {
					if !sock.TCPInfo(fd, &l.source) {
						return
					}
					segment := int64(l.source.Advmss)
					if random.IntN(8) == 0 {
						l.freeWindow(fd)
					} else {
						l.holdWindow(fd, flowcontrol.Limits{
							Window: 4*segment + random.Int64N(100<<10), UnderWay: random.Int64N(40 * segment), Drained: random.Int64N(100 << 10),
						})
					}
					b, ok := l.receiveBuffer(fd)
					if !ok || !l.tcpInfo(fd) {
						t.Error("the socket has broken")
					}
					if least := 2 * segment; int64(l.tcp.Rcv_ssthresh) < least || b.Size/2 < least {
						t.Fatalf("rcv_ssthresh %d, a buffer for %d: a segment has %d bytes", l.tcp.Rcv_ssthresh, b.Size/2, segment)
					}
				})
				if _, err := in.Read(buf[:1+random.IntN(len(buf))]); err != nil {
					t.Fatal(err)
				}
			}
			in.Close()
			<-sent
		})
	}
}

// TestThrottleDropsNothingOfFullBuffers: senders on a link fill the buffers segment by
// segment while the relay is late. Each segment takes more room than the kernel expects after
// those that came many at once, and with a small window it goes on to the last byte.
func TestThrottleDropsNothingOfFullBuffers(t *testing.T) {
	PrivateNetwork(t, nil)
	const message, rate, window = 1460, 10_000_000, 15 << 10 // bytes, in two segments of the MTU 1500; bytes per second
	before := dropped(t)
	var l loop
	hold := func(in *net.TCPConn) {
		control(t, in, func(fd int) {
			if sock.TCPInfo(fd, &l.source) {
				l.holdWindow(fd, flowcontrol.Limits{Window: window, UnderWay: 22, Drained: 70_000})
			}
		})
	}
	var ins []*net.TCPConn
	var senders sync.WaitGroup
	for i := range 300 {
		out, in := connected(t)
		ins = append(ins, in)
		control(t, out, func(fd int) {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, rate); err != nil {
				t.Error(err)
			}
		})
		senders.Go(func() {
			data := make([]byte, message)
			for err := error(nil); err == nil; { // until the other end is closed
				_, err = out.Write(data)
			}
		})
		if _, err := io.CopyN(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, int64(32<<10+i%100*1000)); err != nil {
			t.Fatal(err)
		}
		hold(in)
	}
	for range 4 {
		time.Sleep(tickLength) // the throttle looks once per tick
		for _, in := range ins {
			hold(in)
		}
	}
	if n := dropped(t) - before; n != 0 {
		t.Errorf("%d segments were dropped for want of a receive buffer", n)
	}
	for _, in := range ins {
		in.Close()
	}
	senders.Wait()
}

// dropped is for how many segments this thread's network had no room in a receive buffer.
func dropped(t *testing.T) (n int64) {
	t.Helper()
	for _, name := range []string{"TCPRcvQDrop", "OfoPruned"} {
		k, err := netlab.TCPCounter(name)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	return n
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
