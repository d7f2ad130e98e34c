package engine

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/sock"
)

// modelEnd is one of the two ends that a pair connects: a socket that never blocks,
// what it sent and what it got.
type modelEnd struct {
	fd        int    // -1: closed
	sent, got []byte // sent: what its kernel took
	fin       bool   // it has sent a FIN, or closed, which may be one
	broke     bool   // it has sent an RST
	closed    bool   // it has closed; what came later was answered with an RST
	shutRead  bool   // it said that it would read no more: what comes when it has ended too is answered with an RST
	eof       bool   // it saw a FIN
	reset     bool   // it saw an RST
	drained   bool   // and nothing more will come
	brokeAt   uint32 // tick of that
	safe      int    // bytes that had certainly arrived at the relay's kernel when it sent its RST
}

// write sends n bytes, in writes of at most size bytes, or as many as the socket takes.
func (e *modelEnd) write(n, size int) error {
	for n > 0 {
		at := len(e.sent) % (len(text) / 2)
		b := text[at : at+min(n, size)]
		m, err := unix.SendmsgN(e.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return nil
		case unix.EPIPE, unix.ECONNRESET:
			e.reset = true
			return nil
		default:
			return fmt.Errorf("send: %w", err)
		}
		e.sent = append(e.sent, b[:m]...)
		n -= m
	}
	return nil
}

// urge sends one byte of urgent data.
func (e *modelEnd) urge() error {
	b := text[len(e.sent)%(len(text)/2):][:1]
	err := unix.Sendto(e.fd, b, unix.MSG_OOB|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	switch err {
	case nil:
		e.sent = append(e.sent, b...)
	case unix.EAGAIN, unix.EINTR:
	case unix.EPIPE, unix.ECONNRESET:
		e.reset = true
	default:
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// read takes up to n bytes; news: bytes came, or the stream ended.
func (e *modelEnd) read(n int, buffer []byte) (news bool, err error) {
	for n > 0 && !e.done() {
		m, _, err := unix.Recvfrom(e.fd, buffer[:min(n, len(buffer))], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return news, nil
		case err == unix.ECONNRESET || err == unix.EPIPE:
			e.reset, e.drained = true, true
			return true, nil
		case err != nil:
			return news, fmt.Errorf("recv: %w", err)
		case m == 0 && e.reset: // a write was told of it
			e.drained = true
			return true, nil
		case m == 0 && e.shutRead:
			return news, nil
		case m == 0:
			e.eof, e.drained = true, true
			return true, nil
		}
		e.got = append(e.got, buffer[:m]...)
		n -= m
		news = true
	}
	return news, nil
}

// done: nothing more will come.
func (e *modelEnd) done() bool { return e.fd < 0 || e.drained }

// finish sends a FIN.
func (e *modelEnd) finish() {
	if e.fd >= 0 && !e.fin {
		e.fin = true
		_ = unix.Shutdown(e.fd, unix.SHUT_WR) // ENOTCONN: it was reset
	}
}

// stopReading is shutdown(SHUT_RD).
func (e *modelEnd) stopReading() {
	e.shutRead = true
	_ = unix.Shutdown(e.fd, unix.SHUT_RD)
}

// breakOff closes with an RST.
func (e *modelEnd) breakOff(tick uint32) {
	e.brokeAt = tick
	if info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		// The SYN counts as one.
		e.safe = min(len(e.sent), max(0, int(info.Bytes_acked)-1))
	}
	e.broke = true
	sock.CloseWithRST(e.fd)
	e.fd = -1
}

// leave closes.
func (e *modelEnd) leave() {
	e.fin, e.closed = true, true
	unix.Close(e.fd)
	e.fd = -1
}

func (e *modelEnd) String() string {
	if e == nil {
		return "nobody"
	}
	return fmt.Sprintf("sent %d got %d fin %v rst %v closed %v shutRead %v sawFIN %v sawRST %v",
		len(e.sent), len(e.got), e.fin, e.broke, e.closed, e.shutRead, e.eof, e.reset)
}

// modelListener is where connections of the model come from.
type modelListener struct {
	fd   int
	addr unix.SockaddrInet4
}

// modelMSS is small, for loopback's own is as large as the buffers of these tests, with which
// the kernel waits for timers instead of sending.
const modelMSS = 1400

func listenForModel(receive int) (*modelListener, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ln := &modelListener{fd: fd, addr: unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}}
	modelBuffers(fd, 0, receive)
	err = unix.Bind(fd, &ln.addr)
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err == nil {
		var at unix.Sockaddr
		at, err = unix.Getsockname(fd)
		if err == nil {
			ln.addr = *at.(*unix.SockaddrInet4)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return ln, nil
}

// accept waits for the next connection, as long as one may take on loopback.
func (ln *modelListener) accept() (int, error) {
	fds := []unix.PollFd{{Fd: int32(ln.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if n, err := unix.Poll(fds, 1000); n == 1 {
			fd, _, err := unix.Accept4(ln.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return fd, err
		} else if err != nil && err != unix.EINTR {
			return -1, err
		}
	}
	return -1, unix.ETIMEDOUT
}

// connect opens a connection to ln, both ends of it.
func (ln *modelListener) connect(send, receive int) (near, far int, err error) {
	near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	modelBuffers(near, send, receive)
	if err = unix.Connect(near, &ln.addr); err == nil {
		err = unix.SetNonblock(near, true)
	}
	if err == nil {
		if far, err = ln.accept(); err == nil {
			return near, far, nil
		}
	}
	unix.Close(near)
	return -1, -1, err
}

// modelBuffers sets a socket's buffers; 0 leaves one to the kernel.
func modelBuffers(fd, send, receive int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, modelMSS)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if send > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, send)
	}
	if receive > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receive)
	}
}

// begins reports whether whole begins with part.
func begins(whole, part []byte) bool { return bytes.HasPrefix(whole, part) }
