package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// actor is a program at one end, and what it saw. What it sends is taken from a
// stream that is its own.
type actor struct {
	*net.TCPConn
	s     *stage
	who   string
	says  []byte
	sent  int64
	acked int64 // bytes that its kernel knew to have arrived when it was reset
	view
}

// longest is the most that an actor sends.
const longest = much + few

// texts are what clients and servers say.
var texts = sync.OnceValue(func() (texts [2][]byte) {
	for i := range texts {
		texts[i] = make([]byte, longest)
		random := rand.NewChaCha8([32]byte{byte(i)})
		random.Read(texts[i])
	}
	return texts
})

// other is the end that a is not.
func (a *actor) other() *actor {
	if a == a.s.client {
		return a.s.server
	}
	return a.s.client
}

// say sends n bytes. The send buffers of h1 and h3 hold all of them, so this never waits for
// the other end to read.
func (a *actor) say(n int64) {
	a.s.t.Helper()
	if _, err := a.Write(a.says[a.sent : a.sent+n]); err != nil {
		a.s.t.Fatalf("%s sends %d bytes: %v", a.who, n, err)
	}
	a.sent += n
}

// finish sends a FIN.
func (a *actor) finish() {
	a.s.t.Helper()
	if err := a.CloseWrite(); err != nil {
		a.s.t.Fatalf("%s: %v", a.who, err)
	}
}

// abort sends an RST. The kernel forgets what it has not sent.
func (a *actor) abort() {
	a.s.t.Helper()
	a.acked = a.sent - a.control(unix.SIOCOUTQ)
	rst(a.TCPConn)
}

// listen reads n bytes.
func (a *actor) listen(n int64) {
	a.s.t.Helper()
	if got, err := a.compare(io.LimitReader(a, n)); got != n || err != nil {
		a.s.t.Fatalf("%s got %d of %d bytes: %v", a.who, got, n, err)
	}
}

// hear reads to the end.
func (a *actor) hear() {
	a.s.t.Helper()
	_, err := a.compare(a)
	switch {
	case err == nil:
		a.ending = fin
	case errors.Is(err, unix.ECONNRESET):
		a.ending = reset
	default:
		a.s.t.Fatalf("%s, after %d bytes: %v", a.who, a.bytes, err)
	}
}

// hearAcknowledged is hear after the other end was reset with much unsent.
func (a *actor) hearAcknowledged() {
	a.s.t.Helper()
	a.hear()
	if a.other().acked == 0 || a.bytes < a.other().acked {
		a.s.t.Fatalf("%s got %d bytes; %d were acknowledged before the reset, of %d", a.who, a.bytes, a.other().acked, a.other().sent)
	}
	a.bytes = acknowledged
}

// compare reads and compares what comes with what the other end sent, and counts.
func (a *actor) compare(r io.Reader) (n int64, err error) {
	a.s.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		got, err := r.Read(buf)
		want := a.other().says[:a.other().sent][a.bytes:]
		if got > len(want) || !bytes.Equal(buf[:got], want[:got]) {
			a.s.t.Fatalf("%s: the %d bytes after the first %d are not those that were sent", a.who, got, a.bytes)
		}
		a.bytes += int64(got)
		n += int64(got)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// shutReading shuts reading down.
func (a *actor) shutReading() {
	a.s.t.Helper()
	if err := a.CloseRead(); err != nil {
		a.s.t.Fatalf("%s: %v", a.who, err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		a.s.t.Fatalf("%s reads %d bytes, %v, though it has shut reading down", a.who, n, err)
	}
}

// awaitGone waits until the connection is gone, when its end was read.
func (a *actor) awaitGone() {
	a.s.t.Helper()
	const closed = 7 // TCP_CLOSE of linux/tcp_states.h
	a.s.await("the RST at the "+a.who, func() bool { return a.tcpInfo(a.TCPConn).State == closed })
	if _, err := a.Write(a.says[:1]); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		a.s.t.Fatalf("%s writes to a connection that was reset: %v", a.who, err)
	}
	if a.ending == fin {
		a.ending = finThenReset
	}
}

// awaitInbox waits until n bytes wait to be read.
func (a *actor) awaitInbox(n int64) {
	a.s.t.Helper()
	a.s.await(fmt.Sprintf("%d bytes at the %s", n, a.who), func() bool { return a.control(unix.SIOCINQ) == n })
}

// stuff sends so much that not all of it can leave while the other end does not read, and
// waits until no more leaves.
func (a *actor) stuff() {
	a.s.t.Helper()
	a.say(much)
	left, since := int64(0), 0
	a.s.await("the way to fill up", func() bool {
		if n := a.control(unix.SIOCOUTQ); n != left {
			left, since = n, 0
		}
		since++
		return since == 12
	})
	if left == 0 {
		a.s.t.Fatalf("what the %s sent went somewhere, though nobody read", a.who)
	}
	if a.s.relayed() && a.s.Stats().Pending == 0 {
		a.s.t.Fatal("nothing is pending in the relay")
	}
}

// control asks how many bytes wait, in the one queue or the other.
func (a *actor) control(request uint) (n int64) {
	a.s.t.Helper()
	a.raw(a.TCPConn, func(fd int) error {
		v, err := unix.IoctlGetInt(fd, request)
		n = int64(v)
		return err
	})
	return n
}

func (a *actor) tcpInfo(c syscall.Conn) (info unix.TCPInfo) {
	a.s.t.Helper()
	a.raw(c, func(fd int) error {
		i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			info = *i
		}
		return err
	})
	return info
}

// raw calls f with the descriptor of a connection or a listener.
func (a *actor) raw(c syscall.Conn, f func(fd int) error) {
	a.s.t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		if outside := raw.Control(func(fd uintptr) { err = f(int(fd)) }); outside != nil {
			err = outside
		}
	}
	if err != nil {
		a.s.t.Fatalf("%s: %v", a.who, err)
	}
}
