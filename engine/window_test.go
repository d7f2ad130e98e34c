package engine

import (
	"testing"

	"golang.org/x/sys/unix"
)

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
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var l loop
	if err := raw.Control(func(fd uintptr) {
		source := int(fd)
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
			if l.tcpInfo(source) {
				l.holdWindow(source, window, 0, 0)
			}
		}
		held := size()
		l.freeWindow(source)
		given := size()
		t.Logf("tuned %d, held %d, given back %d bytes; most in a round trip %d", tuned, held, given, l.tcp.Rcv_space)
		if held > tuned {
			t.Errorf("held at %d, was %d", held, tuned)
		}
		if want := min(2*int64(l.tcp.Rcv_space), 200<<10); given < want { // the least net.core.rmem_max that is common
			t.Errorf("given back %d bytes, want %d", given, want)
		}
		if given < held {
			t.Errorf("given back %d bytes, was held at %d", given, held)
		}
		if locked, err := unix.GetsockoptInt(source, unix.SOL_SOCKET, unix.SO_BUF_LOCK); err == nil && locked&unix.SOCK_RCVBUF_LOCK != 0 {
			t.Error("the kernel does not tune it any more")
		}
	}); err != nil {
		t.Fatal(err)
	}
}
